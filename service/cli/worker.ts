import { readSources, work } from '../../generator/index.ts'
import { openStore } from '../../storage/index.ts'
import type { CommonOptions } from './filter.ts'
import { progress } from './progress.ts'
import { readSecretKey } from './secret.ts'
import { stopOnSignals } from './signals.ts'
import { roomOf, type Scratch } from './size.ts'

interface WorkerCommandOptions extends CommonOptions {
  queue: string
  sources?: string
  jobs: number
  lease: number
  memory?: number
  scratch?: Scratch
  archive?: boolean
  secretKey?: string
}

/** `btfmill worker`: takes jobs until it is told to end. Returns the exit status. */
export async function run(options: WorkerCommandOptions): Promise<number> {
  const { queue, jobs, lease, memory, scratch = {}, archive, json = false } = options
  const secretKey = await readSecretKey(options.secretKey)
  const view = progress(json)
  const stop = stopOnSignals(view.say)
  try {
    const { published, failed, left } = await work({
      store: await openStore(options.store),
      sources: [...(await readSources(options.sources)).values()],
      ...{ queue, jobs, lease, onEvent: view.onEvent, ...stop },
      ...roomOf(memory, scratch),
      ...(archive !== undefined && { archive }),
      ...(secretKey !== undefined && { secretKey }),
    })
    view.end()
    const text = `${published} published; ${failed} failed; ${left} given back`
    console.log(json ? JSON.stringify({ event: 'summary', published, failed, left }) : text)
    return 0
  } finally {
    view.end()
  }
}
