/*
 * A run: discover → plan → jobs. What fails on the way, a suite or a package, is stored and told, and never stops the
 * rest.
 */
import { Catalog, type FailureCode, type KernelName, type Tool } from '../../storage/index.ts'
import { findPackages, type PackageSearchOptions } from '../indexes/available.ts'
import { type Job, type JobOptions, jobIdOf, jobOf, jobOfFile, jobOptionsOf } from './job.ts'
import { openQueue } from './open-queue.ts'
import { findPahole } from './pahole.ts'
import { plan } from './plan.ts'
import { publishCatalog, publishTree } from './publish.ts'
import type { JobResult, QueueOptions } from './queue.ts'

export interface GenerateOptions
  extends PackageSearchOptions,
    Omit<QueueOptions, 'tool'>,
    JobOptions {
  /** the newest so many packages of all that match */
  limit?: number
  /** signs the snapshot of the catalog, and the archive tree's manifest */
  secretKey?: string
  /** keep the btfhub-archive tree, too */
  archive?: boolean
}

export interface Summary {
  published: number
  skipped: number
  postponed: number
  failed: Partial<Record<FailureCode, number>>
  /** suites that could not be read */
  sourcesFailed: number
  /** not begun, since the run was asked to end */
  left: number
  /** left to workers */
  queued: number
}

/** Whether everything went well. */
export const isClean = ({ failed, sourcesFailed, left }: Summary): boolean =>
  sourcesFailed === 0 && left === 0 && Object.keys(failed).length === 0

/**
 * Generates what the sources offer and the store lacks. Failures of packages and suites are in the summary and in the
 * store. Throws GeneratorError `pahole_missing`, and the signal's reason.
 */
export async function generate(options: GenerateOptions): Promise<Summary> {
  const { store, onEvent, limit } = options
  const tool = await findPahole(options.signal)
  const offers = await findPackages(options)
  const planned = await plan(offers.packages, {
    store,
    fingerprint: tool.fingerprint,
    earlyStop: options.earlyStop ?? false,
    modules: options.modules ?? [],
    ...(limit !== undefined && { limit }),
  })
  onEvent?.({ event: 'planned', ...planned, jobs: planned.jobs.length })
  const jobs = planned.jobs.map((found) => jobOf(found, jobOptionsOf(options)))
  const outcomes = await runAndPublish(jobs, { ...options, tool })
  return summarize(outcomes, { ...planned, sourcesFailed: offers.failures.length })
}

/** Generates from files and URLs that somebody names; `kernel` says what their names and images do not. */
export async function generateFiles(
  files: readonly string[],
  kernel: Partial<KernelName>,
  options: GenerateOptions,
): Promise<Summary> {
  const tool = await findPahole(options.signal)
  const jobs = files.map((file) => jobOfFile(file, kernel, jobOptionsOf(options)))
  const outcomes = await runAndPublish(jobs, { ...options, tool })
  return summarize(outcomes, { skipped: 0, postponed: 0, sourcesFailed: 0 })
}

/**
 * Has jobs done, and then all follow that follows from records. First an archive that a killed run left without a line
 * in the manifest: once its record is replaced, nothing would say any more that it was ever right.
 */
async function runAndPublish(
  jobs: readonly Job[],
  options: GenerateOptions & { tool: Tool },
): Promise<JobResult[]> {
  if (options.archive) await publishTree(await Catalog.open(options.store), options)
  const outcomes = await runJobs(jobs, options)
  await publishCatalog(options)
  return outcomes
}

/** Has jobs done, in their order. Throws what ended them, when all have ended. */
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
  before: Pick<Summary, 'skipped' | 'postponed' | 'sourcesFailed'>,
): Summary {
  const { skipped, postponed, sourcesFailed } = before
  const summary: Summary = {
    published: 0,
    skipped,
    postponed,
    failed: {},
    sourcesFailed,
    left: 0,
    queued: 0,
  }
  for (const outcome of outcomes) {
    if (outcome.state === 'failed') {
      const { code } = outcome.failure
      summary.failed[code] = (summary.failed[code] ?? 0) + 1
    } else summary[outcome.state]++
  }
  return summary
}
