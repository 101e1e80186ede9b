/*
 * A run: discover → plan → jobs → publish. The failure of a suite or of a package is stored and reported, and never
 * stops the others.
 */
import {
  Catalog,
  type FailureCode,
  type KernelName,
  newestOfSeries,
  partialOf,
  recordKey,
  type Store,
  type Tool,
} from '../../storage/index.ts'
import {
  findPackages,
  type PackageSearch,
  type PackageSearchOptions,
} from '../indexes/available.ts'
import type { KernelPackage } from '../sources/source.ts'
import { headersTool } from './headers.ts'
import {
  type Job,
  type JobOptions,
  jobIdOf,
  jobOf,
  jobOfFile,
  jobOfHeaders,
  jobOptionsOf,
  rolesFor,
} from './job.ts'
import { openQueue } from './open-queue.ts'
import { findPahole } from './pahole.ts'
import { knownRecord, type Plan, plan } from './plan.ts'
import { publishCatalog, publishTree } from './publish.ts'
import type { JobResult, QueueOptions } from './queue.ts'

export interface GenerateOptions
  extends Omit<PackageSearchOptions, 'roles' | 'newest'>,
    Omit<QueueOptions, 'tool'>,
    JobOptions {
  /** consider only that many of the matching packages: the newest */
  limit?: number
  /** consider only packages of that many releases of each series: the newest */
  newest?: number
  /** minisign secret key: signs the snapshot of the catalog and the archive tree's manifest */
  secretKey?: string
  /** maintain the btfhub-archive tree, too */
  archive?: boolean
}

/** What a run would do, before it does it. */
export interface RunPlan extends Omit<Plan, 'jobs'>, Omit<PackageSearch, 'packages'> {
  jobs: Job[]
  tool: Tool
}

/** The results of a run: numbers of packages, and of suites that failed. */
export interface Summary {
  published: number
  /** in the store already */
  skipped: number
  /** failed before, and not due for a retry */
  postponed: number
  failed: Partial<Record<FailureCode, number>>
  /** suites whose index could not be read */
  sourcesFailed: number
  /** not started, since the run was asked to end */
  left: number
  /** left to workers */
  queued: number
  /** bytes of packages that were read, also in vain */
  read: number
}

/** Tells whether nothing failed and nothing was left. */
export const isClean = ({ failed, sourcesFailed, left }: Summary): boolean =>
  sourcesFailed === 0 && left === 0 && Object.keys(failed).length === 0

/**
 * Finds the packages of the sources that the store lacks. With `dryRun` nothing is written to the store, otherwise the
 * failures of suites are. Errors: `pahole_missing`; those of the store; the signal's reason.
 */
export async function planRun(options: GenerateOptions): Promise<RunPlan> {
  const { newest, ...search } = options
  const { store, onEvent, limit } = options
  const tool = await findPahole(options.signal, options)
  const isPartial = options.from === 'headers'
  const { packages, ...rest } = await findPackages({
    ...search,
    roles: rolesFor(options),
    ...(limit !== undefined && newest === undefined && { newest: limit }),
  })
  const ofSeries =
    newest === undefined ? packages : newestOfSeries(packages, newest, (of) => of.kernel)
  const chosen = ofSeries.slice(0, limit)
  const lacking = isPartial ? await lackingIn(store, chosen) : chosen
  const planned = await plan(lacking, {
    store: isPartial ? partialOf(store) : store,
    fingerprint: isPartial ? headersTool(tool).fingerprint : tool.fingerprint,
    earlyStop: options.earlyStop ?? false,
    modules: options.modules ?? [],
    inlinedCalls: options.inlinedCalls ?? false,
    ...(options.from && { from: options.from }),
    ...(limit !== undefined && { limit }),
  })
  planned.skipped += chosen.length - lacking.length
  onEvent?.({ event: 'planned', ...planned, jobs: planned.jobs.length })
  const jobs = planned.jobs.map((found) => jobOf(found, jobOptionsOf(options)))
  return { ...planned, ...rest, jobs, tool }
}

/** The packages of builds whose whole BTF the store lacks: partial BTF is of no use beside it. */
async function lackingIn(
  store: Store,
  packages: readonly KernelPackage[],
): Promise<KernelPackage[]> {
  const lacking: KernelPackage[] = []
  for (const found of packages) {
    const key = recordKey(found.kernel, found.version)
    const record = await knownRecord(store, key).catch(() => undefined)
    if (!record?.btf) lacking.push(found)
  }
  return lacking
}

/**
 * Generates BTF of all packages of a plan, by default of those of the sources that the store lacks. Failures of packages
 * and suites are counted in the summary and recorded in the store. Errors: those of `planRun` and of the queue.
 */
export async function generate(options: GenerateOptions, planned?: RunPlan): Promise<Summary> {
  const { jobs, tool, failures, ...counts } = planned ?? (await planRun(options))
  const outcomes = await runAndPublish(jobs, { ...options, tool })
  return summarize(outcomes, { ...counts, sourcesFailed: failures.length })
}

/** Generates BTF of given files and URLs; `kernel` names what they do not tell themselves. Errors: as `generate`. */
export async function generateFiles(
  files: readonly string[],
  kernel: Partial<KernelName>,
  options: GenerateOptions,
): Promise<Summary> {
  const tool = await findPahole(options.signal, options)
  const wanted = jobOptionsOf(options)
  const jobs =
    options.from === 'headers'
      ? [jobOfHeaders(files, kernel, wanted)]
      : files.map((file) => jobOfFile(file, kernel, wanted))
  const outcomes = await runAndPublish(jobs, { ...options, tool })
  return summarize(outcomes, { skipped: 0, postponed: 0, sourcesFailed: 0 })
}

/**
 * Runs jobs, and publishes the catalog. The archive tree is updated before, too: a killed run may have left an archive
 * without a line in the manifest, and once its record is replaced nothing can confirm that archive.
 */
async function runAndPublish(
  jobs: readonly Job[],
  options: GenerateOptions & { tool: Tool },
): Promise<JobResult[]> {
  const { archive, ...others } = options
  if (options.from === 'headers') {
    const outcomes = await runJobs(jobs, options)
    await publishCatalog({ ...others, store: partialOf(options.store) })
    return outcomes
  }
  if (archive) await publishTree(await Catalog.open(options.store), options)
  const outcomes = await runJobs(jobs, options)
  await publishCatalog(options)
  return outcomes
}

/** Runs jobs in their order. Rejects with the first error, after all jobs have ended. */
async function runJobs(
  jobs: readonly Job[],
  options: GenerateOptions & { tool: Tool },
): Promise<JobResult[]> {
  const queue = await openQueue(options)
  try {
    const running = jobs.map((job) => {
      const id = jobIdOf(job, options.tool.fingerprint)
      return queue.run(job, (event) => options.onEvent?.({ ...event, job: id }))
    })
    await Promise.allSettled(running)
    return await Promise.all(running)
  } finally {
    await queue.close()
  }
}

function summarize(
  outcomes: readonly JobResult[],
  planned: Pick<Summary, 'skipped' | 'postponed' | 'sourcesFailed'>,
): Summary {
  const { skipped, postponed, sourcesFailed } = planned
  const summary: Summary = {
    published: 0,
    skipped,
    postponed,
    failed: {},
    sourcesFailed,
    left: 0,
    queued: 0,
    read: 0,
  }
  for (const outcome of outcomes) {
    if ('read' in outcome) summary.read += outcome.read
    if (outcome.state === 'failed') {
      const { code } = outcome.failure
      summary.failed[code] = (summary.failed[code] ?? 0) + 1
    } else summary[outcome.state]++
  }
  return summary
}
