/* The door of storage/: where bytes live, and what the catalog says of kernels. */
export { archiveArch, canonicalArch } from './arch.ts'
export {
  archiveKey,
  archivePath,
  kernelOfPath,
  packArchive,
  packTar,
  SUFFIX as ARCHIVE_SUFFIX,
  unpackArchive,
} from './archive.ts'
export {
  type Blob,
  type BlobInfo,
  getBlob,
  inflate,
  putBlob,
  readBlob,
  readFrame,
} from './blob.ts'
export { Catalog } from './catalog.ts'
export { signCatalog } from './catalog-signature.ts'
export { sha256Of } from './digest.ts'
export { namesOf } from './distro.ts'
export { STORE_ERROR_CODES, StoreError, type StoreErrorCode } from './error.ts'
export { FAILURE_CODES, Failure, type FailureCode, type RetryClass } from './failure.ts'
export { collectGarbage } from './gc.ts'
export { matchGlob } from './glob.ts'
export {
  listSourceFailures,
  putRecord,
  putSourceFailure,
  readRecord,
  readSourceFailure,
} from './json.ts'
export { Kernel, type KernelFilter, KernelName } from './kernel.ts'
export {
  type ArchiveManifest,
  type ArchiveOptions,
  archiveFileOf,
  forgetArchive,
  publishArchive,
  readManifest,
} from './manifest.ts'
export {
  blobKey,
  buildOf,
  decodeName,
  encodeName,
  kernelPrefix,
  recordKey,
  sourceFailureKey,
} from './name.ts'
export { DEFAULT_STORE, openPresign, openStore } from './open.ts'
export type { Presign } from './presign.ts'
export { publicRecord } from './public.ts'
export {
  BtfInfo,
  BuildRecord,
  type ModuleFailure,
  type ModuleInfo,
  Package,
  SourceFailure,
  Tool,
} from './record.ts'
export { matchesFilter, type RecordEntry } from './records.ts'
export { generateKeys, publicKeyOf, signContent, verifyContent } from './signature.ts'
export { signatureKey } from './signed.ts'
export { SNAPSHOT_KEY } from './snapshot.ts'
export type { ByteRange, ObjectInfo, PutOptions, Store, StoredObject } from './store.ts'
export { type StoreFinding, verifyStore } from './verify.ts'
export { compareVersions } from './version.ts'
export { xzVersion } from './xz.ts'
