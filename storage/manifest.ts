/*
 * The manifest of the archive tree: one JSON document with the digest of each file and of the BTF in it. The tree is
 * filled from the blobs, and has the BTF of each kernel's newest build. An archive that was taken over with a digest stays as
 * it was sent: its readers compare that digest. The manifest is replaced by compare-and-swap.
 */
import { isDeepStrictEqual } from 'node:util'
import Type from 'typebox'
import { Compile } from 'typebox/compile'
import { ARCHIVE, archiveKey, hasArchivePath, packArchive } from './archive.ts'
import { getBlob } from './blob.ts'
import { sha256Of } from './body.ts'
import type { Catalog } from './catalog.ts'
import { ignoreNotFound, isDamagedObject, isUnusableRecord, StoreError } from './error.ts'
import { parseJson, readBytes } from './json.ts'
import type { KernelName } from './kernel.ts'
import { prefixOfKey } from './name.ts'
import type { BuildRecord } from './record.ts'
import { newestFirst } from './records.ts'
import { signObject } from './signed.ts'
import type { ObjectInfo, Store } from './store.ts'
import { compareAndSwap, ifUnchanged } from './swap.ts'

export const MANIFEST_KEY = `${ARCHIVE}manifest.json`
/** The largest manifest that is read, in bytes. */
export const MAX_MANIFEST = 256 * 1024 * 1024

const Sha256 = Type.String({ pattern: '^[0-9a-f]{64}$' })

const ArchiveFile = Type.Object({
  /** hex SHA-256 of the archive file */
  sha256: Sha256,
  /** bytes of the archive file */
  size: Type.Integer({ minimum: 0 }),
  /** hex SHA-256 of the raw BTF in the archive */
  btf: Sha256,
})
type ArchiveFile = Type.Static<typeof ArchiveFile>

const ArchiveManifest = Type.Object({
  schema: Type.Literal(1),
  /** by path below `archive/` */
  files: Type.Record(Type.String(), ArchiveFile),
})
export type ArchiveManifest = Type.Static<typeof ArchiveManifest>

const manifest = Compile(ArchiveManifest)

/** Reads the manifest; undefined if there is none. Errors: `invalid_record`; those of `Store.get`. */
export async function readManifest(store: Store): Promise<ArchiveManifest | undefined> {
  const bytes = await readBytes(store, MANIFEST_KEY, MAX_MANIFEST).catch(ignoreNotFound)
  return bytes && parseJson(MANIFEST_KEY, bytes, manifest)
}

export interface ArchiveOptions {
  /** signs the manifest with this key */
  secretKey?: string
  /** keys of archives to pack again even if the manifest lists them */
  repack?: ReadonlySet<string>
  signal?: AbortSignal
}

/**
 * Brings the archive tree in line with a catalog: packs missing and outdated archives, and writes the manifest if it
 * changed. It skips kernels whose blob is missing or damaged, and kernels whose release is too long for the tree.
 * Returns the number of archives that were written. Errors: `invalid_key`; `unsupported` if xz is not installed; those
 * of `Store`.
 */
export async function publishArchive(
  store: Store,
  catalog: Catalog,
  options: ArchiveOptions = {},
): Promise<number> {
  let written = 0
  await compareAndSwap(async () => {
    const head = await store.head(MANIFEST_KEY).catch(ignoreNotFound)
    const old = await readManifest(store).catch(() => undefined) // an invalid manifest is replaced
    const existing = new Map<string, ObjectInfo>()
    for await (const info of store.list(ARCHIVE)) existing.set(info.key, info)
    const files: Record<string, ArchiveFile> = {}
    for (const record of newestOfEach(catalog)) {
      const key = archiveKey(record.kernel)
      const listed = options.repack?.has(key) ? undefined : old?.files[pathOf(key)]
      const isCurrent =
        listed?.btf === record.btf.sha256 && isUnchanged(listed, existing.get(key), head)
      const file = isCurrent ? listed : await putArchive(store, key, record, options.signal)
      if (file) files[pathOf(key)] = file
      if (file && !isCurrent) written++
    }
    if (written === 0 && old && isDeepStrictEqual(old.files, files)) return
    await store.put(MANIFEST_KEY, encode(files), ifUnchanged(head?.etag))
  })
  if (options.secretKey) await signObject(store, MANIFEST_KEY, MAX_MANIFEST, options.secretKey)
  return written
}

/** The archive from which a record's BTF was taken over, if readers of the record's source compare its digest. */
export function sentArchive({
  package: { sha256, size },
  takenFrom,
}: Pick<BuildRecord, 'package' | 'takenFrom'>): Pick<ArchiveFile, 'sha256' | 'size'> | undefined {
  if (takenFrom?.[0]?.kind !== 'datadog' || sha256 === undefined || size === undefined)
    return undefined
  return { sha256, size }
}

/**
 * Keeps the archive from which a record's BTF was taken over; `listArchives` adds it to the manifest. Returns whether it was
 * written: one that is there stays. Errors: `digest_mismatch`; those of `Store`.
 */
export async function keepArchive(
  store: Store,
  record: BuildRecord,
  bytes: Uint8Array,
): Promise<boolean> {
  const sent = sentArchive(record)
  if (!sent || !hasArchivePath(record.kernel)) return false
  try {
    await store.put(archiveKey(record.kernel), bytes, { sha256: sent.sha256, ifAbsent: true })
    return true
  } catch (error) {
    if (error instanceof StoreError && error.code === 'precondition_failed') return false
    throw error
  }
}

/**
 * Adds archives that were kept to the manifest, and signs it if a key is given. Errors: `invalid_key`, `invalid_record`;
 * those of `Store`.
 */
export async function listArchives(
  store: Store,
  records: readonly BuildRecord[],
  secretKey?: string,
): Promise<void> {
  if (records.length === 0) return
  await compareAndSwap(async () => {
    const head = await store.head(MANIFEST_KEY).catch(ignoreNotFound)
    const { files }: Pick<ArchiveManifest, 'files'> = (await readManifest(store)) ?? { files: {} }
    for (const { kernel, btf, ...record } of records) {
      const sent = sentArchive(record)
      if (sent && btf) files[pathOf(archiveKey(kernel))] ??= { ...sent, btf: btf.sha256 }
    }
    await store.put(MANIFEST_KEY, encode(files), ifUnchanged(head?.etag))
  })
  if (secretKey) await signObject(store, MANIFEST_KEY, MAX_MANIFEST, secretKey)
}

const encode = (files: ArchiveManifest['files']): Buffer =>
  Buffer.from(`${JSON.stringify({ schema: 1, files }, null, 1)}\n`)

/**
 * Tells whether an archive is still the one that the manifest lists. A killed run may have written an archive after the
 * manifest; no manifest has its digest.
 */
function isUnchanged(
  listed: ArchiveFile,
  archive: ObjectInfo | undefined,
  manifest: ObjectInfo | undefined,
): boolean {
  if (!archive || !manifest) return false
  return archive.size === listed.size && archive.modified <= manifest.modified
}

/** Finds a kernel's archive in a manifest. */
export const findInManifest = (
  { files }: ArchiveManifest,
  kernel: KernelName,
): ArchiveFile | undefined =>
  hasArchivePath(kernel) ? files[pathOf(archiveKey(kernel))] : undefined

/** Removes a kernel's archive from a manifest in memory. */
export function removeFromManifest({ files }: ArchiveManifest, kernel: KernelName): void {
  delete files[pathOf(archiveKey(kernel))]
}

/** The path of an archive below `archive/`, as manifest and clients use it. */
export const pathOf = (key: string): string => key.slice(ARCHIVE.length)

type AvailableArchive = BuildRecord & Required<Pick<BuildRecord, 'btf'>>

/** Yields the record with the newest BTF of each kernel that the tree can hold. */
function* newestOfEach(catalog: Catalog): Generator<AvailableArchive> {
  let kernel: string | undefined
  let newest: AvailableArchive | undefined
  for (const { key, record } of catalog.list()) {
    if (!hasArchivePath(record.kernel)) continue
    if (kernel !== prefixOfKey(key)) {
      if (newest) yield newest
      newest = undefined
    }
    kernel = prefixOfKey(key)
    if (record.btf && (!newest || newestFirst(record, newest) <= 0))
      newest = record as AvailableArchive
  }
  if (newest) yield newest
}

/** Packs and writes a kernel's archive, unless it is there as it was sent; undefined if its blob is missing or damaged. */
async function putArchive(
  store: Store,
  key: string,
  record: AvailableArchive,
  signal: AbortSignal | undefined,
): Promise<ArchiveFile | undefined> {
  const { kernel, btf } = record
  const sent = sentArchive(record)
  if (sent && (await hasBytes(store, key, sent))) return { ...sent, btf: btf.sha256 }
  const raw = await getBlob(store, btf.sha256).catch(ignoreDamaged)
  if (!raw) return undefined
  const bytes = await packArchive(kernel.release, raw, signal)
  const sha256 = sha256Of(bytes)
  await store.put(key, bytes, { sha256, ...(signal && { signal }) })
  return { sha256, size: bytes.length, btf: btf.sha256 }
}

/** Tells whether an object has these bytes. Errors: those of `Store` that concern more than one object. */
async function hasBytes(
  store: Store,
  key: string,
  { sha256, size }: Pick<ArchiveFile, 'sha256' | 'size'>,
): Promise<boolean> {
  try {
    return sha256Of(await readBytes(store, key, size)) === sha256
  } catch (error) {
    if (isDamagedObject(error) || isUnusableRecord(error)) return false
    throw error
  }
}

/** For `catch`: skips a missing or damaged blob, which `verifyStore` reports, so that the other kernels go on. */
function ignoreDamaged(error: unknown): undefined {
  if (!isDamagedObject(error)) throw error
}
