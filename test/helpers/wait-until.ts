/* Waiting in tests, by polling. */
import { setTimeout as sleep } from 'node:timers/promises'
import { request } from 'undici'

const MAX_POLLS = 1500
const POLL_INTERVAL = 20

/** Polls until the value is the wanted one, and gives it. Throws after 30 s. */
export async function until<T>(poll: () => Promise<T>, wanted: (seen: T) => boolean): Promise<T> {
  let seen = await poll()
  for (let polls = 1; !wanted(seen); polls++) {
    if (polls >= MAX_POLLS)
      throw new Error(`not reached after ${MAX_POLLS} polls, last value: ${JSON.stringify(seen)}`)
    await sleep(POLL_INTERVAL)
    seen = await poll()
  }
  return seen
}

/** Waits until a service is ready. */
export async function ready(url: string): Promise<void> {
  const status = async () => {
    const { statusCode, body } = await request(`${url}/readyz`)
    await body.dump()
    return statusCode
  }
  await until(status, (code) => code === 200)
}
