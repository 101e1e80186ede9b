/*
 * The door of storage/: other folders import from here alone. It has the stores that hold bytes, the objects that are
 * kept in them (blobs, records, the catalog, the archive tree, signatures), and the names by which kernels are found.
 */

// Stores.

export { isDamagedObject, isUnusableRecord, StoreError, type StoreErrorCode } from './error.ts'
export { DEFAULT_STORE, openPresigner, openStore } from './open.ts'
export type { Presigner } from './presign.ts'
export type { ByteRange, ObjectInfo, PutOptions, Store, StoredObject } from './store.ts'

// Keys and names.

export { archiveArch, canonicalArch } from './arch.ts'
export {
  countedNameOf,
  distributionIn,
  type KernelHints,
  mayRebuild,
  parentsOf,
} from './derivative.ts'
export { ANY, namesOf, versionIdsOf } from './distro.ts'
export { isGlob, matchGlob } from './glob.ts'
export { Kernel, type KernelFilter, KernelName, valuesOf, type Wanted } from './kernel.ts'
export {
  blobKey,
  buildOf,
  decodeName,
  encodeName,
  kernelPrefix,
  packKey,
  recordKey,
  sourceResultKey,
  symbolsKey,
} from './name.ts'
export { flavourOf, newestOfSeries, seriesOf, sortableRelease } from './series.ts'
export { compareVersions } from './version.ts'

// Blobs: BTF, and the symbols of kernels.

export {
  type BlobInfo,
  decompressBlob,
  getBlob,
  getSymbols,
  orPacked,
  putBlob,
  putSymbols,
  readBlob,
  readCompressedBlob,
  readStoredBytes,
  type StoredBlob,
  type StoredBytes,
} from './blob.ts'
export { sha256Of } from './body.ts'
export { boundToParent } from './child.ts'

// Records.

export { FAILURE_CODES, Failure, type FailureCode, type RetryClass } from './failure.ts'
export {
  listSourceFailures,
  listSourceResults,
  putRecord,
  putSourceResult,
  readRecord,
  readSourceResult,
  toRecord,
} from './json.ts'
export { publicFailure, publicRecord } from './public.ts'
export {
  BtfInfo,
  BuildRecord,
  HeadersInfo,
  type ModuleFailure,
  type ModuleInfo,
  Package,
  SourceFailure,
  SourceResult,
  type SymbolsInfo,
  type TakenFrom,
  Tool,
} from './record.ts'

// The store of partial BTF, made from headers.

export { partialOf } from './partial.ts'
export { openWithPartial, readWithPartial, withPartial } from './with-partial.ts'

// Proxies of this machine.

export { findProxies, type Proxies } from './proxy.ts'

// URLs, paths and messages that anyone may see.

export { scrubbed, showable, withoutCredentials } from './showable.ts'

// The catalog.

export { Catalog } from './catalog.ts'
export { matchesFilter, type RecordEntry } from './records.ts'
export { SNAPSHOT_KEY } from './snapshot.ts'

// The archive tree.

export {
  ARCHIVE_SUFFIX,
  archiveKey,
  archivePath,
  kernelOfPath,
  packArchive,
  packTar,
  unpackArchive,
  unpackMember,
} from './archive.ts'
export {
  type ArchiveManifest,
  type ArchiveOptions,
  findInManifest,
  keepArchive,
  listArchives,
  publishArchive,
  readManifest,
  removeFromManifest,
  sentArchive,
} from './manifest.ts'
export { xzVersion } from './xz.ts'

// Packs.

export {
  decodePackHeader,
  decodePackIndex,
  decodePackMembers,
  encodePackIndex,
  invalidPack,
  isPack,
  MAX_PACK_INDEX,
  MAX_PACK_MEMBER,
  PACK_HEADER,
  type PackIndex,
  type PackMember,
  packFrame,
} from './pack.ts'
export {
  type PackedBtf,
  PackMembers,
  type PackSource,
  packFrames,
  type ReadMember,
  readPackIndex,
} from './pack-members.ts'
export {
  isPackError,
  packsOf,
  readPackRecords,
  type StoredPack,
  type StorePacks,
} from './packs.ts'

// Signatures.

export { signCatalog } from './catalog-signature.ts'
// Concurrent work.
export { mapConcurrent, mapOrdered } from './concurrency.ts'
export { generateKeys, publicKeyOf, signContent, verifyContent } from './signature.ts'
export { signatureKey, signedTime } from './signed.ts'

// Maintenance.

export type { StoreFinding } from './finding.ts'
export { collectGarbage } from './gc.ts'
export { replacementsOf } from './gc-packs.ts'
export { objectsOf } from './lost.ts'
export { type FreedObjects, freedBy, removeKernels } from './remove.ts'
export { addUsage, firstMonth, monthOf, type RecentUsage, recentUsage } from './usage.ts'
export { verifyStore } from './verify.ts'
