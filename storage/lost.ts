/*
 * BTF that is lost: its blob is damaged or missing, and no archive has it. A damaged blob is moved to `quarantine/`, so
 * that the next writer of the same BTF does not take it for a good one. Then the records that name it become due: the
 * next run, or the next request with generation on demand, makes the BTF again from the package.
 */
import type { Catalog } from './catalog.ts'
import { ignoreNotFound, isUnusableRecord } from './error.ts'
import { putRecord, readRecord } from './json.ts'
import { blobKey, buildOf, quarantineKey, recordKey } from './name.ts'
import type { BuildRecord, ModuleInfo } from './record.ts'
import type { Store } from './store.ts'
import { compareAndSwap } from './swap.ts'

/** The module name that stands for all modules of a kernel. */
const ALL = '*'

/** The digests of all BTF that a record names: the kernel's and its modules'. */
export function digestsOf({ btf, modules = {} }: BuildRecord): string[] {
  return [...(btf ? [btf] : []), ...Object.values(modules)].map(({ sha256 }) => sha256)
}

/** Moves a damaged blob to `quarantine/`. Errors: those of `Store`. */
export async function setAside(store: Store, sha256: string): Promise<void> {
  const found = await store.get(blobKey(sha256)).catch(ignoreNotFound)
  if (!found) return
  await store.put(quarantineKey(sha256), found.body)
  await store.delete(blobKey(sha256))
}

/**
 * Whether a digest has no blob, and one of the records at `keys` still names it: a writer may have replaced either
 * meanwhile. Errors: those of `Store`.
 */
export async function isLost(
  store: Store,
  keys: readonly string[],
  sha256: string,
): Promise<boolean> {
  if (await hasBlob(store, sha256)) return false
  for (const key of keys) {
    const record = await readRecord(store, key).catch(ignoreUnusable)
    if (record && digestsOf(record).includes(sha256)) return true
  }
  return false
}

/**
 * Makes the kernels due whose records name a lost digest, and brings the catalog up to date. Returns the releases by
 * digest. Errors: those of `Store`; `precondition_failed` if other writers always win.
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
    for (const sha256 of digestsOf(record))
      if (lost.has(sha256) && (await forget(store, key, sha256)))
        due.set(sha256, (due.get(sha256) ?? new Set()).add(record.kernel.release))
  await catalog.refresh()
  return due
}

/** Removes lost BTF from the record at a key; returns whether the record named it, and no writer has made it again. */
async function forget(store: Store, key: string, sha256: string): Promise<boolean> {
  return await compareAndSwap(async () => {
    const head = await store.head(key).catch(ignoreUnusable)
    const record = head && (await readRecord(store, key).catch(ignoreUnusable))
    if (!head || !record || !digestsOf(record).includes(sha256)) return false
    if (await hasBlob(store, sha256)) return false
    const next = without(record, sha256)
    if (keyOf(next) !== key) {
      await store.delete(key) // it is named after its BTF, as an import is, and is nothing without
      return true
    }
    const { etag } = await putRecord(store, next, { ifMatch: head.etag })
    // a writer stores the blob once more after the record: it may have done so meanwhile
    if (!(await hasBlob(store, sha256))) return true
    await putRecord(store, record, { ifMatch: etag })
    return false
  })
}

/** A record without lost BTF. */
function without(record: BuildRecord, sha256: string): BuildRecord {
  const updatedAt = new Date().toISOString()
  const { btf, modules = {}, wantedModules, moduleFailures, failure: _, ...rest } = record
  const message = `the stored BTF with the SHA-256 ${sha256} was damaged or lost`
  if (btf?.sha256 === sha256) {
    // the modules' BTF stands on the kernel's, and is made again with it
    const failure = { code: 'damaged_blob', message, attempts: 1, at: updatedAt } as const
    return { ...rest, failure: { ...failure, retryAt: updatedAt }, updatedAt }
  }
  const isKept = ([, info]: [string, ModuleInfo]) => info.sha256 !== sha256
  const entries = Object.entries(modules)
  const kept = Object.fromEntries(entries.filter(isKept))
  const failures = { ...moduleFailures }
  for (const [name, info] of entries)
    if (info.sha256 === sha256) failures[name] = { code: 'damaged_blob', message }
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

const hasBlob = async (store: Store, sha256: string): Promise<boolean> =>
  (await store.head(blobKey(sha256)).catch(ignoreNotFound)) !== undefined

/** For `catch`: a record that is gone or cannot be read names nothing that could be made again. */
function ignoreUnusable(error: unknown): undefined {
  if (!isUnusableRecord(error)) ignoreNotFound(error)
}
