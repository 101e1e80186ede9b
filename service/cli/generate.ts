import { InvalidArgumentError } from 'commander'
import {
  ALL_MODULES,
  type GenerateOptions,
  generate,
  generateFiles,
  isClean,
  readSources,
} from '../../generator/index.ts'
import { openStore } from '../../storage/index.ts'
import { didYouMean, findSimilar } from '../kernel/similar.ts'
import {
  budgetOf,
  type CommonOptions,
  type FilterOptions,
  filterOf,
  readSecretKey,
} from './input.ts'
import { progress, summaryText } from './progress.ts'
import { stopOnSignals } from './signals.ts'

interface GenerateCommandOptions extends CommonOptions, FilterOptions {
  source?: string
  sources: string
  mirror: string
  limit?: number
  jobs: number
  jobMemory: number
  scratch: string
  queue: string
  detach?: boolean
  earlyStop?: boolean
  embedded?: boolean
  modules?: string[]
  archive?: boolean
  secretKey?: string
}

/** `btfmill generate`. Returns the exit status. */
export async function run(files: string[], options: GenerateCommandOptions): Promise<number> {
  const { source, mirror, limit, jobs, jobMemory, scratch, queue, detach } = options
  const { earlyStop = false, embedded = false, modules, archive, json = false } = options
  const known = await readSources(options.sources || undefined)
  if (source !== undefined && !known.has(source)) throw unknownSource(source, [...known.keys()])
  if (detach && !queue)
    throw new InvalidArgumentError(
      '--detach needs --queue URL, the queue that workers take jobs from',
    )
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
    ...(mirror && { mirror }),
    ...(limit !== undefined && { limit }),
    ...budgetOf(jobMemory, scratch),
    ...(queue && { queue }),
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

function unknownSource(source: string, known: readonly string[]): InvalidArgumentError {
  const near = findSimilar(source, known)
  const hint = near.length > 0 ? didYouMean(near) : `expected one of ${known.join(', ')}`
  return new InvalidArgumentError(`unknown source "${source}": ${hint}`)
}
