/*
 * What is in the archive tree: of each file its digest and that of the BTF in it, in one JSON document. The tree is
 * filled from the blobs, for each kernel with the BTF of its newest build; the manifest is replaced by
 * compare-and-swap.
 */
import { isDeepStrictEqual } from 'node:util'
import Type from 'typebox'
import { Compile } from 'typebox/compile'
import { ARCHIVE, archiveKey, hasArchivePath, packArchive } from './archive.ts'
import { getBlob } from './blob.ts'
import type { Catalog } from './catalog.ts'
import { sha256Of } from './digest.ts'
import { absentIsNone, StoreError } from './error.ts'
import { parseJson, readBytes } from './json.ts'
import type { KernelName } from './kernel.ts'
import { prefixOfKey } from './name.ts'
import type { BuildRecord } from './record.ts'
import { newestFirst } from './records.ts'
import { signObject } from './signed.ts'
import type { ObjectInfo, Store } from './store.ts'
import { over, swap } from './swap.ts'

export const MANIFEST_KEY = `${ARCHIVE}manifest.json`
export const MAX_MANIFEST = 256 * 1024 * 1024

const Sha256 = Type.String({ pattern: '^[0-9a-f]{64}$' })

const ArchiveFile = Type.Object({
  /** hex, of the archive's bytes */
  sha256: Sha256,
  /** bytes of the archive */
  size: Type.Integer({ minimum: 0 }),
  /** hex SHA-256 of the raw BTF in it */
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

/** The manifest, if there is one. Errors: `invalid_record`. */
export async function readManifest(store: Store): Promise<ArchiveManifest | undefined> {
  const bytes = await readBytes(store, MANIFEST_KEY, MAX_MANIFEST).catch(absentIsNone)
  return bytes && parseJson(MANIFEST_KEY, bytes, manifest)
}

export interface ArchiveOptions {
  /** signs the manifest */
  secretKey?: string
  /** pack these again, whatever the manifest says: keys of archives */
  anew?: ReadonlySet<string>
  signal?: AbortSignal
}

/**
 * Packs what the tree lacks of a catalog's kernels, and writes the manifest where it says something else; left out are
 * kernels whose blob is not whole, and those whose release is too long for the tree. Returns how many files were written.
 * Errors: those of the store, and `unsupported` where there is no xz.
 */
export async function publishArchive(
  store: Store,
  catalog: Catalog,
  options: ArchiveOptions = {},
): Promise<number> {
  let written = 0
  await swap(async () => {
    const head = await store.head(MANIFEST_KEY).catch(absentIsNone)
    const old = await readManifest(store).catch(() => undefined) // one that does not read is replaced
    const there = new Map<string, ObjectInfo>()
    for await (const info of store.list(ARCHIVE)) there.set(info.key, info)
    const files: Record<string, ArchiveFile> = {}
    for (const record of newestOfEach(catalog)) {
      const key = archiveKey(record.kernel)
      const known = options.anew?.has(key) ? undefined : old?.files[pathOf(key)]
      const fits = known?.btf === record.btf.sha256 && isAsSaid(known, there.get(key), head)
      const file = fits ? known : await putArchive(store, key, record, options.signal)
      if (file) files[pathOf(key)] = file
      if (file && !fits) written++
    }
    if (written === 0 && old && isDeepStrictEqual(old.files, files)) return
    const bytes = Buffer.from(`${JSON.stringify({ schema: 1, files }, null, 1)}\n`)
    await store.put(MANIFEST_KEY, bytes, over(head?.etag))
  })
  if (options.secretKey) await signObject(store, MANIFEST_KEY, MAX_MANIFEST, options.secretKey)
  return written
}

/** A run that was killed may have put an archive later than the manifest: that holds what no manifest says. */
function isAsSaid(
  said: ArchiveFile,
  archive: ObjectInfo | undefined,
  manifest: ObjectInfo | undefined,
): boolean {
  if (!archive || !manifest) return false
  return archive.size === said.size && archive.modified <= manifest.modified
}

/** What a manifest says of a kernel's archive. */
export const archiveFileOf = (
  { files }: ArchiveManifest,
  kernel: KernelName,
): ArchiveFile | undefined =>
  hasArchivePath(kernel) ? files[pathOf(archiveKey(kernel))] : undefined

/** Takes out of a manifest in memory what it says of a kernel's archive. */
export function forgetArchive({ files }: ArchiveManifest, kernel: KernelName): void {
  delete files[pathOf(archiveKey(kernel))]
}

/** The path of an archive as the manifest and clients have it. */
export const pathOf = (key: string): string => key.slice(ARCHIVE.length)

type AvailableArchive = BuildRecord & Required<Pick<BuildRecord, 'btf'>>

function* newestOfEach(catalog: Catalog): Generator<AvailableArchive> {
  let shelf: string | undefined
  let newest: AvailableArchive | undefined
  for (const { key, record } of catalog.list()) {
    if (!hasArchivePath(record.kernel)) continue
    if (shelf !== prefixOfKey(key) && newest) yield newest
    if (shelf !== prefixOfKey(key)) newest = undefined
    shelf = prefixOfKey(key)
    if (record.btf && (!newest || newestFirst(record, newest) <= 0))
      newest = record as AvailableArchive
  }
  if (newest) yield newest
}

async function putArchive(
  store: Store,
  key: string,
  { kernel, btf }: AvailableArchive,
  signal: AbortSignal | undefined,
): Promise<ArchiveFile | undefined> {
  const raw = await getBlob(store, btf.sha256).catch(damagedIsNone)
  if (!raw) return undefined
  const bytes = await packArchive(kernel.release, raw, signal)
  const sha256 = sha256Of(bytes)
  await store.put(key, bytes, { sha256, ...(signal && { signal }) })
  return { sha256, size: bytes.length, btf: btf.sha256 }
}

/** `verifyStore` tells of it; the other kernels need not wait. */
function damagedIsNone(error: unknown): undefined {
  if (error instanceof StoreError && ['not_found', 'digest_mismatch'].includes(error.code))
    return undefined
  throw error
}
