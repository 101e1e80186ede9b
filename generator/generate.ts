/*
 * A run: discover → plan → jobs. What fails on the way, a suite or a package, is stored and told, and never stops the
 * rest.
 */
import {
  Catalog,
  type FailureCode,
  type KernelFilter,
  type KernelName,
  publishArchive,
  putSourceFailure,
  sourceFailureKey,
} from '../storage/index.ts'
import { discover, newestFirst, type Shelf, shelvesOf, suiteOf } from './discover.ts'
import { GeneratorError } from './error.ts'
import { type Job, jobOf, jobOfFile } from './job.ts'
import { findMirror, type Mirror } from './mirror.ts'
import { findPahole } from './pahole.ts'
import { failureOf, type Outcome, type PipelineOptions, runJob } from './pipeline.ts'
import { type Plan, plan } from './plan.ts'
import { removeAbandonedScratch } from './scratch.ts'
import type { KernelPackage, Source } from './source.ts'
import { SOURCES } from './sources.ts'

export interface GenerateOptions extends Omit<PipelineOptions, 'tool'> {
  filter?: KernelFilter
  /** the newest so many packages of all that match */
  limit?: number
  /** only these sources; else all */
  sources?: readonly Source[]
  /** URL of the main archive, `http://host/debian` */
  mirror?: string
  /** where indexes are kept between runs */
  cache?: string
  /** how many packages at once */
  jobs?: number
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
  /** shelves that could not be discovered */
  sourcesFailed: number
}

/** Whether everything went well. */
export const isClean = ({ failed, sourcesFailed }: Summary): boolean =>
  sourcesFailed === 0 && Object.keys(failed).length === 0

/**
 * Generates what the sources offer and the store lacks. Failures of packages and suites are in the summary and in the
 * store. Throws GeneratorError `pahole_missing`, and the signal's reason.
 */
export async function generate(options: GenerateOptions): Promise<Summary> {
  const { store, onEvent, filter = {}, sources = [...SOURCES.values()] } = options
  const tool = await findPahole(options.signal)
  const mirror = await findMirror(options.mirror)
  const shelves = sources.flatMap((source) => shelvesOf(source, filter))
  const found = await discoverAll(shelves, mirror, options)
  const planned = await plan(newestFirst(found.packages), {
    store,
    artefact: tool.artefact,
    earlyStop: options.earlyStop ?? false,
    ...(options.limit !== undefined && { limit: options.limit }),
  })
  onEvent?.({ event: 'planned', ...planned, jobs: planned.jobs.length })
  const outcomes = await runJobs(planned.jobs.map(jobOf), { ...options, tool })
  await publishCatalog(options)
  return summarize(outcomes, planned, found.failed)
}

/** Generates from files and URLs that somebody names; `kernel` says what their names and images do not. */
export async function generateFiles(
  files: readonly string[],
  kernel: Partial<KernelName>,
  options: GenerateOptions,
): Promise<Summary> {
  const tool = await findPahole(options.signal)
  const jobs = files.map((file) => jobOfFile(file, kernel))
  const outcomes = await runJobs(jobs, { ...options, tool })
  await publishCatalog(options)
  return summarize(outcomes, { skipped: 0, postponed: 0 }, 0)
}

async function publishCatalog({
  store,
  archive = false,
  secretKey,
  signal,
}: GenerateOptions): Promise<void> {
  const catalog = await Catalog.publish(store, secretKey)
  if (!archive) return
  await publishArchive(store, catalog, {
    ...(secretKey && { secretKey }),
    ...(signal && { signal }),
  })
}

async function discoverAll(
  shelves: readonly Shelf[],
  mirror: Mirror,
  options: GenerateOptions,
): Promise<{ packages: KernelPackage[]; failed: number }> {
  const { store, filter = {}, onEvent, cache, signal, patience } = options
  const packages: KernelPackage[] = []
  let failed = 0
  for (const shelf of shelves) {
    const [source, suite] = [shelf.source.id, `${shelf.suite.suite}-${shelf.arch}`]
    const about = { source, suite: shelf.suite.suite, arch: shelf.arch }
    try {
      const offered = await discover(shelf, mirror, filter, {
        signal,
        ...(cache && { cache }),
        ...(patience && { patience }),
      })
      packages.push(...offered)
      await store.delete(sourceFailureKey(source, suite))
      onEvent?.({ event: 'discovered', ...about, packages: offered.length })
    } catch (error) {
      signal?.throwIfAborted()
      if (!(error instanceof GeneratorError)) throw error
      const failure = failureOf(error, 1)
      const { base } = suiteOf(shelf, mirror)
      await putSourceFailure(store, { schema: 1, source, suite, url: base, failure })
      onEvent?.({ event: 'source-failed', ...about, failure })
      failed++
    }
  }
  return { packages, failed }
}

/** Runs jobs, so many at once, in their order. */
async function runJobs(
  jobs: readonly Job[],
  options: PipelineOptions & { jobs?: number },
): Promise<Outcome[]> {
  await removeAbandonedScratch(options.scratch)
  const outcomes: Outcome[] = []
  const waiting = jobs.values()
  const work = async () => {
    for (const job of waiting) outcomes.push(await runJob(job, options))
  }
  await Promise.all(Array.from({ length: options.jobs ?? 1 }, work))
  return outcomes
}

function summarize(
  outcomes: readonly Outcome[],
  { skipped, postponed }: Pick<Plan, 'skipped' | 'postponed'>,
  sourcesFailed: number,
): Summary {
  const failed: Partial<Record<FailureCode, number>> = {}
  for (const outcome of outcomes) {
    if (outcome.state === 'failed')
      failed[outcome.failure.code] = (failed[outcome.failure.code] ?? 0) + 1
  }
  const published = outcomes.filter(({ state }) => state === 'published').length
  return { published, skipped, postponed, failed, sourcesFailed }
}
