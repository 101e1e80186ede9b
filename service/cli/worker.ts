import { readSources, work } from '../../generator/index.ts'
import { openStore } from '../../storage/index.ts'
import { budgetOf, type CommonOptions, keyDirectories, readKey } from './input.ts'
import { progress } from './progress.ts'
import { stopOnSignals } from './signals.ts'

interface WorkerCommandOptions extends CommonOptions {
  queue: string
  sources: string
  keys: string
  mirror: string
  jobs: number
  lease: number
  paholeThreads: number
  jobMemory: number
  scratch: string
  archive?: boolean
  secretKey?: string
}

/** `btfmill worker`: works on jobs until a signal ends it. Returns the exit status. */
export async function run(options: WorkerCommandOptions): Promise<number> {
  const { queue, mirror, jobs, lease, jobMemory, scratch, archive, json = false } = options
  const secretKey = await readKey(options.secretKey)
  const view = progress(json)
  const sources = await readSources(options.sources || undefined, keyDirectories(options.keys))
  const stop = stopOnSignals(view.say)
  try {
    const { published, failed, left } = await work({
      store: await openStore(options.store),
      sources: [...sources.values()],
      queue,
      jobs,
      lease,
      onEvent: view.onEvent,
      ...stop,
      paholeThreads: options.paholeThreads,
      ...budgetOf(jobMemory, scratch),
      ...(mirror && { mirror }),
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
