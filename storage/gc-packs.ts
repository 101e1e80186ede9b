/*
 * The packs of a store that are of no use: no record names their BTF, or another pack has all of it that records name. Of
 * two packs that have each other's, always the same one is of use, so that two collectors at the same time never remove
 * both. The other pack must be whole, byte for byte.
 */
import { createHash } from 'node:crypto'
import { isDamagedObject } from './error.ts'
import { blobKey } from './name.ts'
import type { StoredPack } from './packs.ts'
import type { Store } from './store.ts'

/**
 * Finds those of some packs that are of no use beside all packs, given the keys of all blobs that records name. Errors:
 * those of `Store`.
 */
export async function* uselessPacks(
  store: Store,
  some: readonly StoredPack[],
  all: readonly StoredPack[],
  named: ReadonlySet<string>,
): AsyncGenerator<StoredPack> {
  const isNeeded = (sha256: string) => named.has(blobKey(sha256))
  const whole = new Map<StoredPack, Promise<boolean>>()
  const isWhole = (pack: StoredPack) => {
    const known = whole.get(pack) ?? hasItsDigest(store, pack)
    whole.set(pack, known)
    return known
  }
  for (const pack of some) {
    let isUseless = neededOf(pack, isNeeded).length === 0
    for (const other of isUseless ? [] : replacementsOf(pack, all, isNeeded)) {
      isUseless = await isWhole(other)
      if (isUseless) break
    }
    if (isUseless) yield pack
  }
}

/**
 * The packs that have all BTF of a pack that is needed. Of two packs that have each other's, one is the replacement of the
 * other.
 */
export function replacementsOf(
  pack: StoredPack,
  all: readonly StoredPack[],
  isNeeded: (sha256: string) => boolean,
): StoredPack[] {
  const own = neededOf(pack, isNeeded)
  return all.filter((other) => {
    if (other.digest === pack.digest || !covers(other, own)) return false
    return !covers(pack, neededOf(other, isNeeded)) || !isPreferred(pack, other)
  })
}

const neededOf = ({ members }: StoredPack, isNeeded: (sha256: string) => boolean): string[] =>
  members.members.map(({ sha256 }) => sha256).filter(isNeeded)

const covers = ({ members }: StoredPack, digests: readonly string[]): boolean =>
  digests.every((sha256) => members.has(sha256))

/** Orders packs that have the same BTF that is needed: the smaller one stays. */
const isPreferred = (a: StoredPack, b: StoredPack): boolean =>
  a.info.size !== b.info.size ? a.info.size < b.info.size : a.digest < b.digest

/** Tells whether a pack has the digest that its key says. Errors: those of `Store` that concern more than one object. */
export async function hasItsDigest(store: Store, { digest, info }: StoredPack): Promise<boolean> {
  try {
    const hash = createHash('sha256')
    const { body } = await store.get(info.key)
    for await (const piece of body) hash.update(piece)
    return hash.digest('hex') === digest
  } catch (error) {
    if (!isDamagedObject(error)) throw error
    return false
  }
}
