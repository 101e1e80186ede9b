/* The door of generator/: packages in, BTF in a store out. */

export { GeneratorError } from './error.ts'
export type { GenerateEvent, OnEvent, Stage } from './event.ts'
export { type AptSuite, readPackages, type Stanza } from './indexes/apt.ts'
export {
  discover,
  type IndexTarget,
  indexTargetsOf,
  newestFirst,
  packageOf,
} from './indexes/discover.ts'
export {
  type GenerateOptions,
  generate,
  generateFiles,
  isClean,
  type Summary,
} from './jobs/generate.ts'
export { type Imported, importTree } from './jobs/import.ts'
export {
  type OnDemandGeneration,
  OnDemandGenerator,
  type OnDemandOptions,
  type PackageState,
} from './jobs/on-demand.ts'
export { work } from './jobs/open-queue.ts'
export type { Work, WorkerOptions } from './jobs/worker.ts'
export { readTree, type TreeFile } from './packages/btf-tree.ts'
export { type Download, download } from './packages/download.ts'
export { ALL_MODULES } from './packages/module.ts'
export { findKeyrings } from './signature.ts'
export { findMirror, type Mirror } from './sources/mirror.ts'
export { type KernelPackage, keyringsOf, nameOfRepository, type Source } from './sources/source.ts'
export { readSources } from './sources/sources.ts'
