/*
 * Checks every object of a store: records against schema and key, blobs, symbols and packs against their digest, archives
 * against their kernel's BTF, the manifest against the files, the snapshot against the records, and signatures against
 * a given key. With `repair`, it rebuilds blobs from packs and archives, archives and manifest from blobs, and the snapshot from
 * records. BTF that is damaged everywhere is set aside, and its kernels are made due (lost.ts); so are symbols. A record
 * is the truth, so an invalid record is only reported. An object that cannot be read is reported, and the check goes on.
 *
 * A run writes the records first, then what follows from them: archives, manifest, snapshot. During a run, or after a
 * killed run, these are behind the records until the next run ends. That is no damage: nothing is lost, and everything
 * was true once.
 */
import { buffer } from 'node:stream/consumers'
import { ARCHIVE, archiveKey, hasArchivePath, kernelOfArchive, unpackArchive } from './archive.ts'
import { putBlob, readBlob } from './blob.ts'
import { sha256Of } from './body.ts'
import { Catalog } from './catalog.ts'
import { findUnsigned } from './catalog-signature.ts'
import { isDamagedObject, isUnreadable, isUnusableRecord, StoreError } from './error.ts'
import {
  BEHIND,
  type FindingCode,
  type FoundObjects,
  type Recovery,
  type StoreFinding,
  type VerifyOptions,
} from './finding.ts'
import { listSourceFailures } from './json.ts'
import { isLost, makeDue, setAside } from './lost.ts'
import {
  type ArchiveManifest,
  MANIFEST_KEY,
  pathOf,
  publishArchive,
  readManifest,
} from './manifest.ts'
import { blobKey, CONTENT_KEYS, shaOfKey, symbolsKey } from './name.ts'
import { packsOf } from './packs.ts'
import { publicRecord } from './public.ts'
import { signatureKey } from './signed.ts'
import { readSnapshot, SNAPSHOT_KEY } from './snapshot.ts'
import type { Store } from './store.ts'
import { type PackedKeys, verifyPacks } from './verify-packs.ts'

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

async function* findingsOf(store: Store, options: VerifyOptions): AsyncGenerator<FoundObjects> {
  const found: FoundObjects[] = []
  const onInvalid = ({ code, message }: StoreError, key: string) =>
    void found.push({ key, code, message, repaired: false })
  const catalog = new Catalog(store, onInvalid)
  await catalog.refresh()
  const unusable = found.map(({ key }) => key)
  for await (const _ of listSourceFailures(store, onInvalid)) options.signal?.throwIfAborted()
  yield* found
  const recovered = recovery(store, catalog)
  const packed: PackedKeys = new Map()
  yield* verifyPacks({ store, catalog, recover: recovered, packed }, options)
  yield* verifyBlobs(store, catalog, recovered, packed, options)
  yield* verifyArchive(store, catalog, options)
  yield* verifySnapshot(store, catalog, unusable, options)
  yield* verifySignatures(store, options)
}

function recovery(store: Store, catalog: Catalog): Recovery {
  return async (object) => {
    const sha256 = shaOfKey(object)!
    if (object !== blobKey(sha256)) return undefined
    const inPack = await packsOf(store)
      .read(sha256)
      .catch((error: unknown) => {
        if (!isDamagedObject(error)) throw error
      })
    if (inPack) return inPack
    for (const { kernel } of catalog.findBy('sha256', sha256)) {
      if (!hasArchivePath(kernel)) continue
      const raw = await readArchive(store, archiveKey(kernel)).catch(() => undefined)
      if (raw && sha256Of(raw) === sha256) return raw
    }
    return undefined
  }
}

async function readArchive(store: Store, key: string): Promise<Buffer> {
  return await unpackArchive(await readObject(store, key))
}

async function readObject(store: Store, key: string): Promise<Buffer> {
  const { body } = await store.get(key)
  return await buffer(body)
}

async function* verifyBlobs(
  store: Store,
  catalog: Catalog,
  recover: Recovery,
  packed: PackedKeys,
  { repair = false, signal }: VerifyOptions,
): AsyncGenerator<FoundObjects> {
  const missing = namesByObject(catalog)
  for (const [sha256, { size }] of packed) if (size > 0) missing.delete(blobKey(sha256))
  const bad: Omit<FoundObjects, 'repaired'>[] = []
  for (const prefix of Object.keys(CONTENT_KEYS)) {
    for await (const { key } of store.list(prefix)) {
      signal?.throwIfAborted()
      if (shaOfKey(key) === undefined) {
        const what = prefix === 'blobs/' ? 'a blob' : 'symbols'
        const message = `${key} is not the key of ${what}`
        yield { key, code: 'unknown_object', message, repaired: false }
        continue
      }
      missing.delete(key)
      const error = await problemOf(readObjectAt(store, key))
      if (error) bad.push({ key, code: error.code, message: error.message })
    }
  }
  for (const [key, { names, keys }] of missing) {
    signal?.throwIfAborted()
    if (!(await isLost(store, keys, key))) continue
    const what = key.startsWith('symbols/') ? 'symbols' : 'BTF'
    const message = `the ${what} of ${names.join(', ')} ${what === 'BTF' ? 'does' : 'do'} not exist`
    bad.push({ key, code: 'missing_blob', message })
  }
  const lost = new Map<string, FoundObjects>()
  for (const found of bad) {
    const { key, code } = found
    const repaired = repair && (await replace(store, key, await recover(key)))
    const isGone = repair && !repaired && (await isSetAside(store, key, code))
    if (isGone) lost.set(key, { ...found, repaired })
    else yield { ...found, repaired }
  }
  const due = await makeDue(store, catalog, new Set(lost.keys()))
  for (const [key, found] of lost) yield { ...found, due: [...(due.get(key) ?? [])] }
}

/** Reads an object by the key of a digest, and checks it. Errors: those of `readBlob`. */
async function readObjectAt(store: Store, key: string): Promise<unknown> {
  const keyOf = key.startsWith('symbols/') ? symbolsKey : blobKey
  return await readBlob(store, shaOfKey(key)!, keyOf)
}

/** The kernels and modules whose records name an object, and the keys of these records, by the object's key. */
function namesByObject(catalog: Catalog): Map<string, { names: string[]; keys: string[] }> {
  const known = new Map<string, { names: string[]; keys: string[] }>()
  const add = (object: string, name: string, key: string) => {
    const { names, keys } = known.get(object) ?? { names: [], keys: [] }
    known.set(object, { names, keys })
    names.push(name)
    keys.push(key)
  }
  for (const { key, record } of catalog.list()) {
    const { btf, modules = {}, symbols, kernel } = record
    if (btf) add(blobKey(btf.sha256), kernel.release, key)
    for (const [module, { sha256 }] of Object.entries(modules))
      add(blobKey(sha256), `${module} of ${kernel.release}`, key)
    if (symbols) add(symbolsKey(symbols.sha256), kernel.release, key)
  }
  return known
}

async function replace(store: Store, key: string, raw: Buffer | undefined): Promise<boolean> {
  if (!raw) return false
  return await isDone(async () => {
    await store.delete(key) // `putBlob` keeps an existing blob
    await putBlob(store, raw)
  })
}

/** Sets aside an object that is still damaged. Returns whether there is none now. */
async function isSetAside(store: Store, key: string, code: FindingCode): Promise<boolean> {
  if (code === 'missing_blob') return true
  if (code !== 'digest_mismatch') return false // it may be whole, and only not readable by this user
  const error = await problemOf(readObjectAt(store, key))
  return error?.code === 'digest_mismatch' && (await isDone(() => setAside(store, key)))
}

/** Does a repair; false if the object cannot be replaced, as a directory in its place. */
async function isDone(repair: () => Promise<unknown>): Promise<boolean> {
  try {
    await repair()
    return true
  } catch (error) {
    const isOfObject = error instanceof StoreError && error.code === 'invalid_key'
    if (isOfObject || isUnreadable(error)) return false
    throw error
  }
}

async function* verifyArchive(
  store: Store,
  catalog: Catalog,
  { repair = false, secretKey, signal }: VerifyOptions,
): AsyncGenerator<FoundObjects> {
  const findings: Omit<FoundObjects, 'repaired'>[] = []
  const manifest = await readManifest(store).catch((error: unknown) => {
    if (!isUnusableRecord(error)) throw error
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
  if (!repair || findings.length === 0) {
    for (const finding of findings) yield { ...finding, repaired: false }
    return
  }
  const repack = new Set(findings.map(({ key }) => key))
  await isDone(async () => {
    if (findings.some(({ key, code }) => key === MANIFEST_KEY && code === 'unreadable'))
      await store.delete(MANIFEST_KEY)
    await publishArchive(store, catalog, { repack, ...(secretKey && { secretKey }) })
  })
  const now = await readManifest(store).catch(ignoreUnusable)
  for (const finding of findings)
    yield { ...finding, repaired: await isArchiveRepaired(store, catalog, now, finding) }
}

/** Tells whether a finding is corrected in the manifest as it is now. A damaged archive of no known BTF is removed. */
async function isArchiveRepaired(
  store: Store,
  catalog: Catalog,
  manifest: ArchiveManifest | undefined,
  { key, code }: Pick<FoundObjects, 'key' | 'code'>,
): Promise<boolean> {
  if (!manifest || key === MANIFEST_KEY) return !!manifest
  if (manifest.files[pathOf(key)]) return true
  if (code === 'missing_archive') return true // no longer listed
  const kernel = kernelOfArchive(key)
  const isOfNone = kernel && catalog.find(kernel).every(({ btf }) => btf === undefined)
  if (code !== 'digest_mismatch' || !isOfNone) return false
  return await isDone(() => store.delete(key))
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
  const bytes = await readObject(store, key).catch((error: unknown) => {
    if (!isUnreadable(error)) throw error
    return error
  })
  if (bytes instanceof StoreError) return { code: bytes.code, message: bytes.message }
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
  unusable: readonly string[],
  { repair = false, secretKey }: VerifyOptions,
): AsyncGenerator<FoundObjects> {
  const finding = await problemOfSnapshot(store, catalog, unusable)
  if (!finding) return
  const publish = async () => {
    if (finding.code === 'unreadable') await store.delete(SNAPSHOT_KEY)
    await Catalog.publish(store, secretKey)
  }
  yield { key: SNAPSHOT_KEY, ...finding, repaired: repair && (await isDone(publish)) }
}

async function problemOfSnapshot(
  store: Store,
  catalog: Catalog,
  unusable: readonly string[],
): Promise<Pick<FoundObjects, 'code' | 'message'> | undefined> {
  // a record that cannot be read stays in the snapshot as it was known
  const isUnknown = (key: string) => unusable.some((one) => `${key}/`.startsWith(`${one}/`))
  try {
    const snapshot = await readSnapshot(store)
    if (!snapshot && catalog.size === 0) return undefined
    const entries = snapshot?.entries.filter(({ key }) => !isUnknown(key))
    const listed = new Map(entries?.map(({ key, record }) => [key, JSON.stringify(record)]))
    const same = catalog
      .list()
      .every(({ key, record }) => listed.get(key) === JSON.stringify(publicRecord(record)))
    if (same && listed.size === catalog.size) return undefined
    const message = `the snapshot has ${listed.size} records, the store ${catalog.size}, and they differ`
    return { code: 'stale_snapshot', message }
  } catch (error) {
    const isInvalid = error instanceof StoreError && error.code === 'invalid_snapshot'
    if (!isInvalid && !isUnreadable(error)) throw error
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

function ignoreUnusable(error: unknown): undefined {
  if (!isUnusableRecord(error)) throw error
}

/** The error of a read that concerns one object; undefined if it succeeds, or the object was deleted meanwhile. */
async function problemOf(work: Promise<unknown>): Promise<StoreError | undefined> {
  try {
    await work
  } catch (error) {
    if (!isDamagedObject(error)) throw error
    return error.code === 'not_found' ? undefined : error
  }
  return undefined
}
