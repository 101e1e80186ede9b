/*
 * The public interface of generator/: it finds kernel packages in distributions' repositories, makes BTF of them, and
 * publishes it in a store. The exports are in the order in which a package travels: sources, indexes, packages, jobs.
 */

/* Sources: the repositories of distributions, and the keys that sign them. */

export {
  hasPublishedKeys,
  type KeyDirectories,
  keysOfVersion,
  type SourceKeys,
} from './sources/keys.ts'
export { findMirror, type Mirror } from './sources/mirror.ts'
export {
  type KernelPackage,
  nameOfRepository,
  PACKAGE_ROLES,
  type Source,
} from './sources/source.ts'
export { readSources } from './sources/sources.ts'

/* Indexes: the packages that sources list. */

export { type AptSuite, readPackages, type Stanza } from './indexes/apt.ts'
export { explainNoSource, findPackages, type SourceMismatch } from './indexes/available.ts'
export {
  discover,
  type IndexTarget,
  indexTargetsOf,
  newestFirst,
  packageOf,
  suiteOfTarget,
} from './indexes/discover.ts'

export { type FetchedKey, fetchKeys, type KeyFetch } from './indexes/fetch-keys.ts'

/* Packages: downloads, and the files in them. */

export { readTree, type TreeFile } from './packages/btf-tree.ts'
export { type Download, download } from './packages/download.ts'
export { ALL_MODULES } from './packages/module.ts'

/* Jobs: runs, workers, generation on demand, import. */

export {
  type GenerateOptions,
  generate,
  generateFiles,
  isClean,
  planRun,
  type RunPlan,
  type Summary,
} from './jobs/generate.ts'
export { type Imported, importBuilds, importTree, type OfferedBuild } from './jobs/import.ts'
export { type Job, jobOfFile, jobOfHeaders } from './jobs/job.ts'
export {
  type OnDemandGeneration,
  OnDemandGenerator,
  type OnDemandOptions,
  type PackageState,
} from './jobs/on-demand.ts'
export { work } from './jobs/open-queue.ts'
export type { Work, WorkerOptions } from './jobs/worker.ts'

/* Proof: objects on a booted kernel. */

export { type ObjectProof, type Proof, prove } from './prove/prove.ts'
export { type LoaderReport, readLoaderReport } from './prove/report.ts'

/* Errors, and the events of a run. */

export { GeneratorError } from './error.ts'
export type { GenerateEvent, OnEvent, Stage } from './event.ts'
