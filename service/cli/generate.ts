import { fileURLToPath } from 'node:url'
import { InvalidArgumentError } from 'commander'
import {
  ALL_MODULES,
  explainNoSource,
  type GenerateOptions,
  generate,
  generateFiles,
  isClean,
  type Job,
  jobOfFile,
  jobOfHeaders,
  planRun,
  readSources,
} from '../../generator/index.ts'
import {
  type KernelFilter,
  type KernelName,
  openStore,
  type Store,
  StoreError,
  showable,
} from '../../storage/index.ts'
import { ServiceError } from '../error.ts'
import {
  budgetOf,
  type CommonOptions,
  checkReadable,
  type FilterOptions,
  filterOf,
  keyDirectories,
  readKey,
  unknownSource,
} from './input.ts'
import { columns, linesOf, print, printable } from './output.ts'
import { progress, summaryText } from './progress.ts'
import { stopOnSignals } from './signals.ts'

interface GenerateCommandOptions extends CommonOptions, FilterOptions<string[]> {
  source?: string[]
  dryRun?: boolean
  sources: string
  keys: string
  mirror: string
  limit?: number
  newest?: number
  jobs: number
  paholeThreads: number
  jobMemory: number
  scratch: string
  queue: string
  detach?: boolean
  earlyStop?: boolean
  inlinedCalls?: boolean
  from?: 'debug' | 'embedded' | 'headers'
  modules?: string[]
  archive?: boolean
  secretKey?: string
}

/** `btfmill generate`. Returns the exit status. */
export async function run(files: string[], options: GenerateCommandOptions): Promise<number> {
  const { source, mirror, limit, newest, jobs, jobMemory, scratch, queue, detach } = options
  const {
    dryRun = false,
    earlyStop = false,
    from,
    inlinedCalls = false,
    modules,
    archive,
    json = false,
  } = options
  const known = await readSources(options.sources || undefined, keyDirectories(options.keys))
  if (detach && !queue)
    throw new InvalidArgumentError(
      '--detach needs --queue URL, the queue that workers take jobs from',
    )
  const filter = filterOf(options)
  const isIndexed = files.length === 0
  const kernel = isIndexed ? {} : oneOfEach(filter)
  const mismatch = explainNoSource(isIndexed ? filter : {}, [...known.values()], source)
  if (mismatch) throw unknownSource(mismatch)
  if (from === 'headers') checkPartial(options)
  for (const file of files.filter((file) => !/^https?:/.test(file)))
    await checkReadable(file.startsWith('file:') ? fileURLToPath(file) : file, from === 'headers')
  const secretKey = await readKey(options.secretKey)
  const view = progress(json, options)
  const stop = stopOnSignals(view.say)
  const settings: GenerateOptions = {
    store: dryRun ? await openForReading(options.store) : await openStore(options.store),
    filter,
    jobs,
    dryRun,
    earlyStop,
    inlinedCalls,
    ...(from && { from }),
    ...(modules && { modules: modules.includes('all') ? [ALL_MODULES] : modules }),
    ...stop,
    onEvent: view.onEvent,
    sources: [...known.values()],
    ...(source !== undefined && { source }),
    ...(mirror && { mirror }),
    ...(limit !== undefined && { limit }),
    ...(newest !== undefined && { newest }),
    paholeThreads: options.paholeThreads,
    ...budgetOf(jobMemory, scratch),
    ...(queue && { queue }),
    ...(detach !== undefined && { detach }),
    ...(archive !== undefined && { archive }),
    ...(secretKey !== undefined && { secretKey }),
  }
  try {
    const planned = isIndexed ? await planRun(settings) : undefined
    if (planned?.mismatch) throw unknownSource(planned.mismatch)
    if (planned?.indexes === 0) throw noIndex()
    if (dryRun) {
      view.end()
      const given = () =>
        from === 'headers'
          ? [jobOfHeaders(files, kernel)]
          : files.map((file) => jobOfFile(file, kernel))
      const jobs = planned?.jobs ?? given()
      await print(linesOf(json ? jobs.map(jsonOfJob) : tableOf(jobs)))
      return (planned?.failures.length ?? 0) > 0 ? 1 : 0
    }
    const summary = planned
      ? await generate(settings, planned)
      : await generateFiles(files, kernel, settings)
    view.end()
    console.log(json ? JSON.stringify({ event: 'summary', ...summary }) : summaryText(summary))
    return isClean(summary) ? 0 : 1
  } finally {
    view.end()
  }
}

/** Errors: wrong usage for options that headers cannot serve. */
function checkPartial({ archive, modules, inlinedCalls, earlyStop }: GenerateCommandOptions): void {
  const given = Object.entries({ archive, modules, inlinedCalls, earlyStop }).find(
    ([, value]) => value !== undefined,
  )
  if (!given) return
  const flag = given[0].replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)
  throw new InvalidArgumentError(
    `--from headers does not go with --${flag}: headers have part of a kernel's types, and nothing else`,
  )
}

/** A store that is not changed; one in memory stands for a store that does not exist yet. */
async function openForReading(url: string): Promise<Store> {
  return await openStore(url, { create: false }).catch(async (error) => {
    if (!(error instanceof StoreError) || error.code !== 'not_found') throw error
    return await openStore('memory:')
  })
}

/** The one kernel that files are of. Errors: wrong usage for a repeated flag. */
function oneOfEach(filter: Partial<Record<keyof KernelFilter, string[]>>): Partial<KernelName> {
  const pairs = Object.entries(filter).map(([part, values]) => {
    if (values.length === 1) return [part, values[0]]
    throw new InvalidArgumentError(
      `invalid filters "${values.join('", "')}": files are of one kernel, so each flag may be given once`,
    )
  })
  return Object.fromEntries(pairs)
}

const noIndex = (): ServiceError =>
  new ServiceError(
    'unknown_source',
    'no index matches all filters together: btfmill sources lists the sources; opt-in ones need --source, or --distro with --distro-version',
  )

const HEADER = ['DISTRO', 'VERSION', 'ARCH', 'RELEASE', 'PACKAGE', 'BYTES', 'URL']

/** Jobs as rows, with the parts of the name that are known before the package is read. */
function tableOf(jobs: readonly Job[]): string[] {
  const rows = jobs.map(({ kernel, package: { name, version, size, url } }) => {
    const { distro, arch = '', release = '' } = kernel
    const from = [name, version].filter((part) => part !== '').join(' ')
    return [distro, kernel.version, arch, release, from, String(size ?? ''), showable(url)]
  })
  return columns([HEADER, ...rows].map((row) => row.map(printable)))
}

const jsonOfJob = ({ kernel, package: from }: Job): string =>
  JSON.stringify({ event: 'due', kernel, package: { ...from, url: showable(from.url) } })
