/* Waiting for a service in tests: by looking again and again, so often at most. */
import { setTimeout as sleep } from 'node:timers/promises'
import { request } from 'undici'

const LOOKS = 1500

/** Asks until the answer is the one wanted, and gives it. Fails after half a minute. */
export async function until<T>(look: () => Promise<T>, wanted: (seen: T) => boolean): Promise<T> {
  let seen = await look()
  for (let looks = 1; !wanted(seen); looks++) {
    if (looks >= LOOKS) throw new Error(`it never came: ${JSON.stringify(seen)}`)
    await sleep(20)
    seen = await look()
  }
  return seen
}

/** Waits until a service can answer from its store. */
export async function ready(url: string): Promise<void> {
  const status = async () => {
    const { statusCode, body } = await request(`${url}/readyz`)
    await body.dump()
    return statusCode
  }
  await until(status, (code) => code === 200)
}
