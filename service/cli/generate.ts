import {
  ALL_MODULES,
  type GenerateOptions,
  generate,
  generateFiles,
  isClean,
  readSources,
  type Summary,
} from '../../generator/index.ts'
import { type KernelFilter, openStore } from '../../storage/index.ts'
import { type CommonOptions, filterOf } from './filter.ts'
import { progress } from './progress.ts'
import { readSecretKey } from './secret.ts'

interface Options extends CommonOptions, KernelFilter {
  source?: string
  sources?: string
  mirror?: string
  limit?: number
  jobs: number
  earlyStop?: boolean
  embedded?: boolean
  modules?: string[]
  scratch?: string
  archive?: boolean
  secretKey?: string
}

/** `btfmill generate`. Returns the exit status. */
export async function run(files: string[], options: Options): Promise<number> {
  const {
    source,
    mirror,
    limit,
    jobs,
    earlyStop,
    modules,
    scratch,
    archive,
    json = false,
  } = options
  const known = await readSources(options.sources)
  if (source !== undefined && !known.has(source)) {
    console.error(`btfmill: there is no source ${source}; known: ${[...known.keys()].join(', ')}`)
    return 2
  }
  const filter = filterOf(options)
  const secretKey = await readSecretKey(options.secretKey)
  const stop = stopOnSignal()
  const view = progress(json)
  const settings: GenerateOptions = {
    store: await openStore(options.store),
    filter,
    jobs,
    earlyStop: earlyStop ?? false,
    embedded: options.embedded ?? false,
    ...(modules && { modules: modules.includes('all') ? [ALL_MODULES] : modules }),
    signal: stop,
    onEvent: view.onEvent,
    sources: [...known.values()],
    ...(source !== undefined && { source }),
    ...(mirror !== undefined && { mirror }),
    ...(limit !== undefined && { limit }),
    ...(scratch !== undefined && { scratch }),
    ...(archive !== undefined && { archive }),
    ...(secretKey !== undefined && { secretKey }),
  }
  try {
    const summary =
      files.length > 0 ? await generateFiles(files, filter, settings) : await generate(settings)
    view.end()
    console.log(json ? JSON.stringify({ event: 'summary', ...summary }) : textOf(summary))
    return isClean(summary) ? 0 : 1
  } finally {
    view.end()
  }
}

function textOf(summary: Summary): string {
  const { published, skipped, postponed, failed, sourcesFailed } = summary
  const failures = Object.entries(failed).map(([code, count]) => `${count} × ${code}`)
  const parts = [
    `${published} published`,
    `${skipped} there already`,
    ...(postponed > 0 ? [`${postponed} failed before and not due`] : []),
    ...(failures.length > 0 ? [`failed: ${failures.join(', ')}`] : []),
    ...(sourcesFailed > 0 ? [`${sourcesFailed} indexes could not be read`] : []),
  ]
  return parts.join('; ')
}

/** Aborts with the first SIGINT or SIGTERM; nothing half is left then. */
function stopOnSignal(): AbortSignal {
  const controller = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => controller.abort(new Error(`stopped by ${signal}`)))
  }
  return controller.signal
}
