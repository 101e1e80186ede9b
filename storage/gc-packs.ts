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

/** Finds the packs of no use, given the keys of all blobs that records name. Errors: those of `Store`. */
export async function* uselessPacks(
  store: Store,
  packs: readonly StoredPack[],
  named: ReadonlySet<string>,
): AsyncGenerator<StoredPack> {
  const needed = new Map(packs.map((pack) => [pack, neededOf(pack, named)]))
  const whole = new Map<StoredPack, Promise<boolean>>()
  const isWhole = (pack: StoredPack) => {
    const known = whole.get(pack) ?? hasItsDigest(store, pack)
    whole.set(pack, known)
    return known
  }
  for (const [pack, own] of needed) {
    if (own.length === 0) {
      yield pack
      continue
    }
    for (const [other, others] of needed) {
      if (other === pack || !covers(other, own)) continue
      if (covers(pack, others) && isPreferred(pack, other)) continue
      if (!(await isWhole(other))) continue
      yield pack
      break
    }
  }
}

const neededOf = ({ members }: StoredPack, named: ReadonlySet<string>): string[] =>
  members.members.map(({ sha256 }) => sha256).filter((sha256) => named.has(blobKey(sha256)))

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
