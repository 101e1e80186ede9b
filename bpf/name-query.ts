/*
 * A query for types by name, which one pass over a BTF answers. It is coarse: it knows the first two bytes of a name, so
 * its result has other types, too. Several queries share a pass as groups, since the pass costs as much as all the rest.
 */

import { MAX_KINDS } from './kind.ts'

export class NameQuery {
  /** by kind: the groups that want it, as bits */
  readonly kinds = new Uint8Array(MAX_KINDS)
  /** by the first two bytes of a name, as a little-endian number: the groups that want it, as bits */
  readonly heads = new Uint8Array(65536)

  /** Wants a kind, by number, for a group, which is one bit. */
  addKind(kind: number, group = 1): void {
    this.kinds[kind]! |= group
  }

  /** Wants names that begin with two bytes; the second is 0 after a name of one byte. */
  addHead(first: number, second: number, group = 1): void {
    this.heads[first | (second << 8)]! |= group
  }
}
