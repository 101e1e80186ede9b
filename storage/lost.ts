/*
 * BTF that is lost: its blob is damaged or missing, and no pack and no archive has it. A damaged blob is moved to `quarantine/`, so
 * that the next writer of the same BTF does not take it for a good one. Then the records that name it become due: the
 * next run, or the next request with generation on demand, makes the BTF again from the package. The same holds for
 * the symbols of a kernel, which nothing else has.
 */
import type { Catalog } from './catalog.ts'
import { ignoreNotFound, isUnusableRecord } from './error.ts'
import { putRecord, readRecord } from './json.ts'
import { blobKey, buildOf, quarantineKey, recordKey, shaOfKey, symbolsKey } from './name.ts'
import { packsOf } from './packs.ts'
import type { BuildRecord, ModuleInfo } from './record.ts'
import type { Store } from './store.ts'
import { compareAndSwap } from './swap.ts'

/** The module name that stands for all modules of a kernel. */
const ALL = '*'

/** The keys of all objects that a record names: the BTF of the kernel and of its modules, and the symbols. */
export function objectsOf({ btf, modules = {}, symbols }: BuildRecord): string[] {
  return [
    ...[...(btf ? [btf] : []), ...Object.values(modules)].map(({ sha256 }) => blobKey(sha256)),
    ...(symbols ? [symbolsKey(symbols.sha256)] : []),
  ]
}

/** Moves a damaged object to `quarantine/`. Errors: those of `Store`. */
export async function setAside(store: Store, object: string): Promise<void> {
  const found = await store.get(object).catch(ignoreNotFound)
  if (!found) return
  await store.put(quarantineKey(object), found.body)
  await store.delete(object)
}

/**
 * Tells whether an object does not exist, and one of the records at `keys` still names it: a writer may have replaced either
 * meanwhile. Errors: those of `Store`.
 */
export async function isLost(
  store: Store,
  keys: readonly string[],
  object: string,
): Promise<boolean> {
  if (await exists(store, object)) return false
  for (const key of keys) {
    const record = await readRecord(store, key).catch(ignoreUnusable)
    if (record && objectsOf(record).includes(object)) return true
  }
  return false
}

/**
 * Makes the kernels due whose records name a lost object, and brings the catalog up to date. Returns the releases by
 * the object's key. Errors: those of `Store`; `precondition_failed` if other writers always win.
 */
export async function makeDue(
  store: Store,
  catalog: Catalog,
  lost: ReadonlySet<string>,
): Promise<Map<string, Set<string>>> {
  const due = new Map<string, Set<string>>()
  if (lost.size === 0) return due
  await catalog.refresh() // a writer may have named a blob before it was set aside
  for (const { key, record } of [...catalog.list()])
    for (const object of objectsOf(record))
      if (lost.has(object) && (await forget(store, key, object)))
        due.set(object, (due.get(object) ?? new Set()).add(record.kernel.release))
  await catalog.refresh()
  return due
}

/** Removes a lost object from the record at a key; returns whether the record named it, and no writer has made it again. */
async function forget(store: Store, key: string, object: string): Promise<boolean> {
  return await compareAndSwap(async () => {
    const head = await store.head(key).catch(ignoreUnusable)
    const record = head && (await readRecord(store, key).catch(ignoreUnusable))
    if (!head || !record || !objectsOf(record).includes(object)) return false
    if (await exists(store, object)) return false
    const next = without(record, object)
    if (keyOf(next) !== key) {
      await store.delete(key) // it is named after its BTF, as an import is, and is nothing without
      return true
    }
    const { etag } = await putRecord(store, next, { ifMatch: head.etag })
    // a writer stores the blob once more after the record: it may have done so meanwhile
    if (!(await exists(store, object))) return true
    await putRecord(store, record, { ifMatch: etag })
    return false
  })
}

/** A record without a lost object. */
function without(record: BuildRecord, object: string): BuildRecord {
  const updatedAt = new Date().toISOString()
  const { btf, modules = {}, wantedModules, moduleFailures, failure: _, ...rest } = record
  const due = (message: string): BuildRecord['failure'] => {
    return { code: 'damaged_blob', message, attempts: 1, at: updatedAt, retryAt: updatedAt }
  }
  const { symbols, ...others } = record
  if (symbols && symbolsKey(symbols.sha256) === object) {
    // the BTF is served until the run that makes both
    const message = `the stored symbols with the SHA-256 ${symbols.sha256} were damaged or lost`
    return { ...others, failure: due(message)!, updatedAt }
  }
  const message = `the stored BTF with the SHA-256 ${shaOfKey(object)} was damaged or lost`
  if (btf && blobKey(btf.sha256) === object) {
    // the modules' BTF stands on the kernel's, and is made again with it
    return { ...rest, failure: due(message)!, updatedAt }
  }
  const isKept = ([, info]: [string, ModuleInfo]) => blobKey(info.sha256) !== object
  const entries = Object.entries(modules)
  const kept = Object.fromEntries(entries.filter(isKept))
  const failures = { ...moduleFailures }
  for (const [name, info] of entries)
    if (blobKey(info.sha256) === object) failures[name] = { code: 'damaged_blob', message }
  // a module that is wanted no more is due in the next run that wants it
  const known = new Set([...(wantedModules ?? []), ...Object.keys({ ...kept, ...failures })])
  const wanted = [...known].filter(
    (name) => name !== ALL && failures[name]?.code !== 'damaged_blob',
  )
  return {
    ...record,
    modules: kept,
    wantedModules: wanted.sort(),
    moduleFailures: failures,
    updatedAt,
  }
}

/** The key of a record; undefined if it has no name. */
function keyOf(record: BuildRecord): string | undefined {
  try {
    return recordKey(record.kernel, buildOf(record))
  } catch {
    return undefined
  }
}

/** Tells whether an object exists, or a pack has the BTF. */
async function exists(store: Store, object: string): Promise<boolean> {
  if ((await store.head(object).catch(ignoreNotFound)) !== undefined) return true
  const sha256 = shaOfKey(object)
  if (sha256 === undefined || object !== blobKey(sha256)) return false
  const packs = packsOf(store)
  await packs.refresh() // a known pack may be gone
  return packs.isKnown(sha256)
}

/** For `catch`: a record that is gone or cannot be read names nothing that could be made again. */
function ignoreUnusable(error: unknown): undefined {
  if (!isUnusableRecord(error)) ignoreNotFound(error)
}
