/*
 * How much text the names of a BTF's types are. A name is an offset, and each may lie in one long string, so that a
 * megabyte would decode to gigabytes. Where no string is long the number of names is bound enough.
 */

import { BtfError } from './error.ts'
import { HEADER_SIZE, KINDS } from './kind.ts'

/** The kernel's names have at most as many bytes (KSYM_NAME_LEN); a line of source, in an object, may have more. */
const LONG = 512
/** Bytes of all names, for each byte of the BTF: what the shortest elements, of 8 bytes, can have with names of `LONG`. */
const MOST = LONG / 8

/** Whether there is a string of `LONG` bytes or more; only as much is looked at as it takes. */
export function hasLongString(strings: Uint8Array): boolean {
  for (let at = 0; at + LONG <= strings.length; ) {
    let nul = at + LONG - 1
    while (nul >= at && strings[nul] !== 0) nul-- // the next is near: a call costs more
    if (nul < at) return true
    at = nul + 1
  }
  return false
}

/** The part of a BTF that this check reads. */
interface NamedTypes {
  readonly bytes: Uint8Array
  readonly startId: number
  readonly endId: number
  kind(id: number): number
  vlen(id: number): number
  word(id: number, at: number): number
  recordAt(id: number): number
  stringBytes(offset: number): Uint8Array
}

/** Checks that the names of a BTF's own types are no more text than they can be meant to. Errors: `too_large`. */
export function checkNames(btf: NamedTypes): void {
  let left = MOST * btf.bytes.length
  const take = (id: number, at: number) => {
    left -= btf.stringBytes(btf.word(id, at)).length
    if (left < 0) throw new BtfError('too_large', 'names are too long', btf.recordAt(id) + at)
  }
  for (let id = btf.startId; id < btf.endId; id++) {
    take(id, 0)
    const layout = KINDS[btf.kind(id)]
    if (!layout || layout.elementName < 0) continue
    const elements = HEADER_SIZE + layout.payload + layout.elementName
    for (let i = 0; i < btf.vlen(id); i++) take(id, elements + i * layout.element)
  }
}
