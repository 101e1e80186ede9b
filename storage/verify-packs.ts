/*
 * Checks the packs of a store: each against the digest in its key, and each member by rebuilding it. With `repair`, a
 * damaged pack is set aside. Its members that can still be rebuilt, or that an archive has, become blobs first, unless
 * they exist elsewhere. The kernels of the others are made due, as those of damaged blobs are.
 */
import { putBlob, readBlob } from './blob.ts'
import type { Catalog } from './catalog.ts'
import { isDamagedObject, isUnreadable, StoreError } from './error.ts'
import type { FoundObjects, Recovery, VerifyOptions } from './finding.ts'
import { hasItsDigest } from './gc-packs.ts'
import { makeDue, setAside } from './lost.ts'
import { blobKey, digestOfPack, PACKS } from './name.ts'
import { packsOf, type StoredPack } from './packs.ts'
import type { Store } from './store.ts'

/** The keys of the packs from which BTF can be rebuilt, by the digest of the BTF. */
export type PackedKeys = Map<string, Set<string>>

interface PackCheck {
  store: Store
  catalog: Catalog
  recover: Recovery
  /** is filled with all packs that are read */
  packed: PackedKeys
}

/** A damaged pack, and the digests of its members that cannot be rebuilt. */
interface DamagedPack {
  key: string
  code: StoreError['code']
  message: string
  pack: StoredPack | undefined
  broken: Set<string>
}

/** Yields what is wrong with the packs. Errors: those of `Store` that prevent the check; the signal's reason. */
export async function* verifyPacks(
  check: PackCheck,
  { repair = false, signal }: VerifyOptions,
): AsyncGenerator<FoundObjects> {
  const { store, packed } = check
  const packs = packsOf(store)
  for await (const { key } of store.list(PACKS))
    if (digestOfPack(key) === undefined)
      yield unrepaired(key, 'unknown_object', `${key} is not the key of a pack`)
  await packs.refresh()
  const damaged: DamagedPack[] = packs.unusable().map(({ info, error: { code, message } }) => ({
    ...{ key: info.key, code, message, pack: undefined, broken: new Set<string>() },
  }))
  for (const pack of packs.list()) {
    const found = await problemOf(pack, store, packed, signal)
    if (found) damaged.push(found)
  }
  for (const found of damaged)
    yield repair && found.code === 'invalid_pack'
      ? await replace(check, found)
      : unrepaired(found.key, found.code, messageOf(check, found))
}

const unrepaired = (key: string, code: FoundObjects['code'], message: string): FoundObjects => ({
  ...{ key, code, message, repaired: false },
})

/** Rebuilds all members of a pack, and adds them to `packed`. Returns what is wrong. */
async function problemOf(
  pack: StoredPack,
  store: Store,
  packed: PackedKeys,
  signal: AbortSignal | undefined,
): Promise<DamagedPack | undefined> {
  const { info, members } = pack
  const broken = new Set<string>()
  const found = (code: StoreError['code'], message: string): DamagedPack => ({
    ...{ key: info.key, code, message, pack, broken },
  })
  let first: StoreError | undefined
  try {
    for await (const { member, result } of members.readAll()) {
      signal?.throwIfAborted()
      if (result instanceof StoreError) {
        first ??= result
        broken.add(member.sha256)
      } else {
        const keys = packed.get(member.sha256) ?? new Set()
        packed.set(member.sha256, keys.add(info.key))
      }
    }
  } catch (error) {
    if (isGone(error)) return undefined // garbage collection removed it
    if (!isUnreadable(error)) throw error
    return found(error.code, error.message)
  }
  if (first) return found('invalid_pack', `${info.key}: ${first.message}`)
  if (await hasItsDigest(store, pack)) return undefined
  if ((await store.head(info.key).catch(isGone)) === true) return undefined
  return found('invalid_pack', `${info.key} does not have the SHA-256 in its name`)
}

const isGone = (error: unknown): boolean => (error as StoreError | undefined)?.code === 'not_found'

/** The message, with the kernels that only this pack has, and that cannot be rebuilt. */
function messageOf({ catalog, packed }: PackCheck, { message, broken }: DamagedPack): string {
  const lost = [...broken].filter((sha256) => !packed.get(sha256)?.size)
  const releases = lost.flatMap((sha256) =>
    catalog.findBy('sha256', sha256).map(({ kernel }) => kernel.release),
  )
  return releases.length > 0 ? `${message}: ${[...new Set(releases)].join(', ')}` : message
}

/** Sets a damaged pack aside, after its members have become blobs as far as anything has them. */
async function replace(check: PackCheck, found: DamagedPack): Promise<FoundObjects> {
  const { store, catalog, recover, packed } = check
  const { key, code, pack } = found
  const message = messageOf(check, found)
  const lost = new Set<string>()
  for (const { sha256 } of pack?.members.members ?? []) {
    const keys = packed.get(sha256)
    keys?.delete(key)
    if (keys?.size || catalog.findBy('sha256', sha256).length === 0) continue
    if (await hasWholeBlob(store, sha256)) continue
    const raw = await recover(blobKey(sha256)) // of this pack, too, which is still there
    if (!raw) {
      lost.add(blobKey(sha256))
      continue
    }
    await store.delete(blobKey(sha256)) // `putBlob` keeps an existing blob
    await putBlob(store, raw)
  }
  await setAside(store, key)
  await packsOf(store).refresh()
  // of a pack whose index is damaged nothing is known: its kernels are found missing
  if (pack && lost.size === 0) return { key, code, message, repaired: true }
  const due = await makeDue(store, catalog, lost)
  const releases = [...due.values()].flatMap((names) => [...names])
  return { key, code, message, repaired: false, due: releases }
}

async function hasWholeBlob(store: Store, sha256: string): Promise<boolean> {
  return await readBlob(store, sha256).then(
    () => true,
    (error: unknown) => {
      if (!isDamagedObject(error)) throw error
      return false
    },
  )
}
