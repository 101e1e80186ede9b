/*
 * Every object of a store against what it should be: records against their schema and place, blobs against their
 * address, archives against the BTF of their kernel, the manifest against the files, the snapshot against the records.
 * What can be made again from the rest is, where `repair` is set: blobs from archives, archives and manifest from
 * blobs, the snapshot from records. A record is the truth, so a broken one is only told.
 *
 * A run puts records first, and what follows from them after: archives, the manifest, the snapshot. While it is under way,
 * or when it was killed, these are behind the records, until the next run that ends. That is no damage: nothing is lost,
 * and nothing says what was never true.
 */
import { buffer } from 'node:stream/consumers'
import { ARCHIVE, archiveKey, hasArchivePath, kernelOfArchive, unpackArchive } from './archive.ts'
import { getBlob, putBlob } from './blob.ts'
import { Catalog } from './catalog.ts'
import { findUnsigned } from './catalog-signature.ts'
import { sha256Of } from './digest.ts'
import { StoreError, type StoreErrorCode } from './error.ts'
import {
  type ArchiveManifest,
  MANIFEST_KEY,
  pathOf,
  publishArchive,
  readManifest,
} from './manifest.ts'
import { blobKey, shaOfBlobKey } from './name.ts'
import { publicRecord } from './public.ts'
import type { BuildRecord } from './record.ts'
import { signatureKey } from './signed.ts'
import { readSnapshot, SNAPSHOT_KEY } from './snapshot.ts'
import type { Store } from './store.ts'

export type FindingCode =
  | StoreErrorCode
  | 'missing_blob' // a record names BTF that is not there
  | 'missing_archive' // the manifest names a file that is not there
  | 'archive_mismatch' // it has the BTF of another kernel
  | 'unknown_object' // nothing of ours has such a key
  | 'unsigned' // the given key has not signed it, or not its present content
  | keyof typeof BEHIND

/** What is behind the records, and no damage. */
const BEHIND = {
  /** its kernel has newer BTF */
  stale_archive: true,
  /** it does not say what the records say */
  stale_snapshot: true,
  /** it does not name what is there */
  stale_manifest: true,
}

export interface StoreFinding {
  key: string
  code: FindingCode
  message: string
  /** behind the records, not damaged */
  behind: boolean
  /** it was wrong, and is right now */
  repaired: boolean
}

export interface VerifyOptions {
  repair?: boolean
  /** reports what this key has not signed; with `repair`, signs it */
  secretKey?: string
  signal?: AbortSignal
}

/** What is wrong with a store, or behind. Throws only what keeps it from looking: a store that does not answer, the signal. */
export async function* verifyStore(
  store: Store,
  options: VerifyOptions = {},
): AsyncGenerator<StoreFinding> {
  for await (const found of findingsOf(store, options))
    yield { ...found, behind: found.code in BEHIND }
}

type FoundObjects = Omit<StoreFinding, 'behind'>

async function* findingsOf(store: Store, options: VerifyOptions): AsyncGenerator<FoundObjects> {
  const found: FoundObjects[] = []
  const catalog = await openRecords(store, found)
  yield* found
  const recovered = recovery(store, catalog)
  yield* verifyBlobs(store, catalog, recovered, options)
  yield* verifyArchive(store, catalog, options)
  yield* verifySnapshot(store, catalog, options)
  yield* verifySignatures(store, options)
}

async function openRecords(store: Store, found: FoundObjects[]): Promise<Catalog> {
  const catalog = new Catalog(store, (error) => {
    const [key = ''] = error.message.split(': ')
    found.push({ key, code: error.code, message: error.message, repaired: false })
  })
  await catalog.refresh()
  return catalog
}

/** Raw BTF by its digest, out of the archive of a kernel that has it; undefined where none has. */
type Recovery = (sha256: string) => Promise<Buffer | undefined>

function recovery(store: Store, catalog: Catalog): Recovery {
  return async (sha256) => {
    for (const { kernel } of catalog.findBy('sha256', sha256)) {
      if (!hasArchivePath(kernel)) continue
      const raw = await readArchive(store, archiveKey(kernel)).catch(() => undefined)
      if (raw && sha256Of(raw) === sha256) return raw
    }
    return undefined
  }
}

async function readArchive(store: Store, key: string): Promise<Buffer> {
  const { body } = await store.get(key)
  return await unpackArchive(await buffer(body))
}

async function* verifyBlobs(
  store: Store,
  catalog: Catalog,
  recover: Recovery,
  { repair = false, signal }: VerifyOptions,
): AsyncGenerator<FoundObjects> {
  const missing = namesByDigest(catalog)
  const bad: { key: string; sha256: string; error: StoreError }[] = []
  for await (const { key } of store.list('blobs/')) {
    signal?.throwIfAborted()
    const sha256 = shaOfBlobKey(key)
    if (sha256 === undefined) {
      yield { key, code: 'unknown_object', message: `${key} is no blob`, repaired: false }
      continue
    }
    missing.delete(sha256)
    const error = await problemOf(getBlob(store, sha256))
    if (error) bad.push({ key, sha256, error })
  }
  for (const { key, sha256, error } of bad) {
    const repaired = repair && (await replace(store, key, await recover(sha256)))
    yield { key, code: error.code, message: error.message, repaired }
  }
  for (const [sha256, names] of missing) {
    const key = blobKey(sha256)
    const repaired = repair && (await replace(store, key, await recover(sha256)))
    const message = `the BTF of ${names.join(', ')} is not there`
    yield { key, code: 'missing_blob', message, repaired }
  }
}

/** Whose BTF records name, by its digest. */
function namesByDigest(catalog: Catalog): Map<string, string[]> {
  const names = new Map<string, string[]>()
  const add = (sha256: string, name: string) => {
    const known = names.get(sha256)
    if (known) known.push(name)
    else names.set(sha256, [name])
  }
  for (const { record } of catalog.list()) {
    const { btf, modules = {}, kernel } = record
    if (btf) add(btf.sha256, kernel.release)
    for (const [module, { sha256 }] of Object.entries(modules))
      add(sha256, `${module} of ${kernel.release}`)
  }
  return names
}

/** All BTF that a record names: the kernel's and its modules'. */
export function digestsOf({ btf, modules = {} }: BuildRecord): string[] {
  return [...(btf ? [btf] : []), ...Object.values(modules)].map(({ sha256 }) => sha256)
}

async function replace(store: Store, key: string, raw: Buffer | undefined): Promise<boolean> {
  if (!raw) return false
  await store.delete(key) // a put would find it there, and leave it
  await putBlob(store, raw)
  return true
}

async function* verifyArchive(
  store: Store,
  catalog: Catalog,
  { repair = false, secretKey, signal }: VerifyOptions,
): AsyncGenerator<FoundObjects> {
  const findings: Omit<FoundObjects, 'repaired'>[] = []
  const manifest = await readManifest(store).catch((error: StoreError) => {
    findings.push({ key: MANIFEST_KEY, code: error.code, message: error.message })
    return undefined
  })
  const missing = new Set(Object.keys(manifest?.files ?? {}))
  let files = 0
  for await (const { key } of store.list(ARCHIVE)) {
    signal?.throwIfAborted()
    if (key === MANIFEST_KEY || key === signatureKey(MANIFEST_KEY)) continue
    files++
    missing.delete(pathOf(key))
    const finding = await problemOfArchive(store, catalog, manifest, key)
    if (finding) findings.push({ key, ...finding })
  }
  for (const path of missing)
    findings.push({ key: ARCHIVE + path, code: 'missing_archive', message: `${path} is not there` })
  if (files > 0 && !manifest && findings.every(({ key }) => key !== MANIFEST_KEY))
    findings.push({ key: MANIFEST_KEY, code: 'stale_manifest', message: 'there is no manifest' })
  if (repair && findings.length > 0) {
    const anew = new Set(findings.map(({ key }) => key))
    await publishArchive(store, catalog, { anew, ...(secretKey && { secretKey }) })
  }
  const now = repair ? await readManifest(store) : undefined
  const isRight = (key: string) => (key === MANIFEST_KEY ? !!now : !!now?.files[pathOf(key)])
  for (const finding of findings) yield { ...finding, repaired: isRight(finding.key) }
}

/** Of one file in the tree: is it of a kernel we know, whole, and as the manifest says. */
async function problemOfArchive(
  store: Store,
  catalog: Catalog,
  manifest: ArchiveManifest | undefined,
  key: string,
): Promise<Pick<FoundObjects, 'code' | 'message'> | undefined> {
  const kernel = kernelOfArchive(key)
  if (!kernel) return { code: 'unknown_object', message: `${key} is no archive` }
  const { body } = await store.get(key)
  const bytes = await buffer(body)
  const raw = await unpackArchive(bytes).catch((error: StoreError) => error)
  if (raw instanceof Error) return { code: 'digest_mismatch', message: `${key}: ${raw.message}` }
  const known = catalog.find(kernel).some(({ btf }) => btf?.sha256 === sha256Of(raw))
  const said = manifest?.files[pathOf(key)]
  const asSaid = said?.sha256 === sha256Of(bytes)
  if (!known) {
    const [other] = catalog.findBy('sha256', sha256Of(raw))
    return other && !asSaid
      ? { code: 'archive_mismatch', message: `${key} has the BTF of ${other.kernel.release}` }
      : { code: 'stale_archive', message: `${key}: no record of its kernel has that BTF` }
  }
  if (manifest && !asSaid)
    return { code: 'stale_manifest', message: `${key} is not as the manifest says` }
  return undefined
}

async function* verifySnapshot(
  store: Store,
  catalog: Catalog,
  { repair = false, secretKey }: VerifyOptions,
): AsyncGenerator<FoundObjects> {
  const finding = await problemOfSnapshot(store, catalog)
  if (!finding) return
  if (repair) await Catalog.publish(store, secretKey)
  yield { key: SNAPSHOT_KEY, ...finding, repaired: repair }
}

async function problemOfSnapshot(
  store: Store,
  catalog: Catalog,
): Promise<Pick<FoundObjects, 'code' | 'message'> | undefined> {
  try {
    const snapshot = await readSnapshot(store)
    if (!snapshot && catalog.size === 0) return undefined
    const said = new Map(snapshot?.entries.map(({ key, record }) => [key, JSON.stringify(record)]))
    const same = catalog
      .list()
      .every(({ key, record }) => said.get(key) === JSON.stringify(publicRecord(record)))
    if (same && said.size === catalog.size) return undefined
    const message = `it has ${said.size} records, the store ${catalog.size}, or other ones`
    return { code: 'stale_snapshot', message }
  } catch (error) {
    if (!(error instanceof StoreError) || error.code !== 'invalid_snapshot') throw error
    return { code: error.code, message: error.message }
  }
}

/** The signatures, where there is a key to compare them with. */
async function* verifySignatures(
  store: Store,
  { repair = false, secretKey }: VerifyOptions,
): AsyncGenerator<FoundObjects> {
  if (!secretKey) return
  for await (const { key, message, sign } of findUnsigned(store, secretKey)) {
    if (repair) await sign()
    yield { key, code: 'unsigned', message, repaired: repair }
  }
}

/** The error of what should be whole; undefined where it is, or is gone by now. */
async function problemOf(work: Promise<unknown>): Promise<StoreError | undefined> {
  try {
    await work
  } catch (error) {
    if (!(error instanceof StoreError)) throw error
    if (error.code === 'not_found') return undefined
    if (error.code !== 'digest_mismatch') throw error
    return error
  }
  return undefined
}
