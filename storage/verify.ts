/*
 * Checks every object of a store: records against schema and key, blobs against their digest, archives against their
 * kernel's BTF, the manifest against the files, the snapshot against the records, and signatures against a given key.
 * With `repair`, it rebuilds blobs from archives, archives and manifest from blobs, and the snapshot from records. A
 * record is the truth, so an invalid record is only reported.
 *
 * A run writes the records first, then what follows from them: archives, manifest, snapshot. During a run, or after a
 * killed run, these are behind the records until the next run ends. That is no damage: nothing is lost, and everything
 * was true once.
 */
import { buffer } from 'node:stream/consumers'
import { ARCHIVE, archiveKey, hasArchivePath, kernelOfArchive, unpackArchive } from './archive.ts'
import { getBlob, putBlob } from './blob.ts'
import { sha256Of } from './body.ts'
import { Catalog } from './catalog.ts'
import { findUnsigned } from './catalog-signature.ts'
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
  | 'missing_blob' // a record names BTF that has no blob
  | 'missing_archive' // the manifest lists a file that does not exist
  | 'archive_mismatch' // an archive has the BTF of another kernel
  | 'unknown_object' // btfmill makes no such key
  | 'unsigned' // an object has no signature by the given key, or one of older content
  | keyof typeof BEHIND

/** The findings that are behind the records, not damage. */
const BEHIND = {
  /** the archive's kernel has newer BTF */
  stale_archive: true,
  /** the snapshot differs from the records */
  stale_snapshot: true,
  /** the manifest differs from the files, or is missing */
  stale_manifest: true,
}

export interface StoreFinding {
  key: string
  code: FindingCode
  message: string
  /** behind the records, not damaged */
  behind: boolean
  /** whether `repair` corrected it */
  repaired: boolean
}

export interface VerifyOptions {
  /** rebuild what can be rebuilt */
  repair?: boolean
  /** reports objects that this key has not signed; with `repair`, signs them */
  secretKey?: string
  signal?: AbortSignal
}

/**
 * Yields everything in a store that is wrong or behind. Errors: those of `Store` that prevent the check, `invalid_key`;
 * the signal's reason.
 */
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

/** Finds raw BTF by its digest in an archive; undefined if no archive has it. */
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
      yield {
        key,
        code: 'unknown_object',
        message: `${key} is not the key of a blob`,
        repaired: false,
      }
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
    const message = `the BTF of ${names.join(', ')} does not exist`
    yield { key, code: 'missing_blob', message, repaired }
  }
}

/** The kernels and modules whose records name a digest, by digest. */
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

/** The digests of all BTF that a record names: the kernel's and its modules'. */
export function digestsOf({ btf, modules = {} }: BuildRecord): string[] {
  return [...(btf ? [btf] : []), ...Object.values(modules)].map(({ sha256 }) => sha256)
}

async function replace(store: Store, key: string, raw: Buffer | undefined): Promise<boolean> {
  if (!raw) return false
  await store.delete(key) // `putBlob` keeps an existing blob
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
    findings.push({
      key: ARCHIVE + path,
      code: 'missing_archive',
      message: `${path} does not exist`,
    })
  if (files > 0 && !manifest && findings.every(({ key }) => key !== MANIFEST_KEY))
    findings.push({ key: MANIFEST_KEY, code: 'stale_manifest', message: 'there is no manifest' })
  if (repair && findings.length > 0) {
    const repack = new Set(findings.map(({ key }) => key))
    await publishArchive(store, catalog, { repack, ...(secretKey && { secretKey }) })
  }
  const repaired = repair ? await readManifest(store) : undefined
  const isRepaired = (key: string) =>
    key === MANIFEST_KEY ? !!repaired : !!repaired?.files[pathOf(key)]
  for (const finding of findings) yield { ...finding, repaired: isRepaired(finding.key) }
}

/** Checks one file of the tree: it belongs to a known kernel, is whole, and matches the manifest. */
async function problemOfArchive(
  store: Store,
  catalog: Catalog,
  manifest: ArchiveManifest | undefined,
  key: string,
): Promise<Pick<FoundObjects, 'code' | 'message'> | undefined> {
  const kernel = kernelOfArchive(key)
  if (!kernel) return { code: 'unknown_object', message: `${key} is not the key of an archive` }
  const { body } = await store.get(key)
  const bytes = await buffer(body)
  const raw = await unpackArchive(bytes).catch((error: StoreError) => error)
  if (raw instanceof Error) return { code: 'digest_mismatch', message: `${key}: ${raw.message}` }
  const known = catalog.find(kernel).some(({ btf }) => btf?.sha256 === sha256Of(raw))
  const isListed = manifest?.files[pathOf(key)]?.sha256 === sha256Of(bytes)
  if (!known) {
    const [other] = catalog.findBy('sha256', sha256Of(raw))
    return other && !isListed
      ? { code: 'archive_mismatch', message: `${key} has the BTF of ${other.kernel.release}` }
      : { code: 'stale_archive', message: `${key}: no record of its kernel names this BTF` }
  }
  if (manifest && !isListed)
    return { code: 'stale_manifest', message: `${key} differs from the manifest` }
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
    const listed = new Map(
      snapshot?.entries.map(({ key, record }) => [key, JSON.stringify(record)]),
    )
    const same = catalog
      .list()
      .every(({ key, record }) => listed.get(key) === JSON.stringify(publicRecord(record)))
    if (same && listed.size === catalog.size) return undefined
    const message = `the snapshot has ${listed.size} records, the store ${catalog.size}, and they differ`
    return { code: 'stale_snapshot', message }
  } catch (error) {
    if (!(error instanceof StoreError) || error.code !== 'invalid_snapshot') throw error
    return { code: error.code, message: error.message }
  }
}

/** Checks the signatures if there is a key. */
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

/** The `digest_mismatch` of a read; undefined if it succeeds, or the object was deleted meanwhile. */
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
