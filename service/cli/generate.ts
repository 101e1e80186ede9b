import {
  ALL_MODULES,
  type GenerateOptions,
  generate,
  generateFiles,
  isClean,
  readSources,
} from '../../generator/index.ts'
import { type KernelFilter, openStore } from '../../storage/index.ts'
import { type CommonOptions, filterOf } from './filter.ts'
import { progress } from './progress.ts'
import { readSecretKey } from './secret.ts'
import { stopOnSignals } from './signals.ts'
import { roomOf, type Scratch } from './size.ts'
import { summaryText } from './summary.ts'

interface GenerateCommandOptions extends CommonOptions, KernelFilter {
  source?: string
  sources?: string
  mirror?: string
  limit?: number
  jobs: number
  memory?: number
  scratch?: Scratch
  queue?: string
  detach?: boolean
  earlyStop?: boolean
  embedded?: boolean
  modules?: string[]
  archive?: boolean
  secretKey?: string
}

/** `btfmill generate`. Returns the exit status. */
export async function run(files: string[], options: GenerateCommandOptions): Promise<number> {
  const { source, mirror, limit, jobs, memory, scratch = {}, queue, detach } = options
  const { earlyStop = false, embedded = false, modules, archive, json = false } = options
  const known = await readSources(options.sources)
  if (source !== undefined && !known.has(source)) {
    console.error(`btfmill: there is no source ${source}; known: ${[...known.keys()].join(', ')}`)
    return 2
  }
  if (detach && queue === undefined) {
    console.error('btfmill: --detach leaves jobs to workers: say by which --queue they get them')
    return 2
  }
  const filter = filterOf(options)
  const secretKey = await readSecretKey(options.secretKey)
  const view = progress(json)
  const stop = stopOnSignals(view.say)
  const settings: GenerateOptions = {
    store: await openStore(options.store),
    filter,
    jobs,
    earlyStop,
    embedded,
    ...(modules && { modules: modules.includes('all') ? [ALL_MODULES] : modules }),
    ...stop,
    onEvent: view.onEvent,
    sources: [...known.values()],
    ...(source !== undefined && { source }),
    ...(mirror !== undefined && { mirror }),
    ...(limit !== undefined && { limit }),
    ...roomOf(memory, scratch),
    ...(queue !== undefined && { queue }),
    ...(detach !== undefined && { detach }),
    ...(archive !== undefined && { archive }),
    ...(secretKey !== undefined && { secretKey }),
  }
  try {
    const summary =
      files.length > 0 ? await generateFiles(files, filter, settings) : await generate(settings)
    view.end()
    console.log(json ? JSON.stringify({ event: 'summary', ...summary }) : summaryText(summary))
    return isClean(summary) ? 0 : 1
  } finally {
    view.end()
  }
}
