/*
 * A query for types by name, which one pass over a BTF answers. It is coarse: it knows the first two bytes of a name, so
 * its result has other types, too. Several queries share a pass as groups, since the pass costs as much as all the rest.
 */

import { MAX_KINDS } from './kind.ts'
import { nameKey } from './name-key.ts'

/** Bytes that may follow a name of one byte: NUL, or the `_` of a flavour. */
const AFTER = [0, 0x5f]

export class NameQuery {
  /** by kind: the groups that want it, as bits */
  readonly kinds = new Uint8Array(MAX_KINDS)
  /** by the first two bytes of a name, as a little-endian number: the groups that want it, as bits */
  readonly heads = new Uint8Array(65536)
  /** by the key of a name (`nameKey`): the groups that want it, as bits */
  readonly names = new Map<number, number>()

  /** Wants a kind, by number, for a group, which is one bit. */
  addKind(kind: number, group = 1): void {
    this.kinds[kind]! |= group
  }

  /** Wants a name for a group, and the name with a flavour. */
  addName(name: Uint8Array, group = 1): void {
    for (const second of name.length > 1 ? [name[1]!] : AFTER)
      this.heads[name[0]! | (second << 8)]! |= group
    const key = nameKey(name)
    this.names.set(key, (this.names.get(key) ?? 0) | group)
  }
}
