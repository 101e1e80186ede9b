/*
 * Limits the text that the names of a BTF decode to. A name is an offset, and all names may point into one long string,
 * so a megabyte could decode to gigabytes. Without a long string the number of names is limit enough.
 */

import { BtfError } from './error.ts'
import { HEADER_SIZE, KINDS } from './kind.ts'

/** Bytes. The kernel's names are no longer (KSYM_NAME_LEN); source lines in an object may be. */
const LONG = 512
/** Bytes of names per byte of BTF: what the shortest elements, of 8 bytes, reach with names of `LONG` bytes. */
const MOST = LONG / 8

/** True if some string has `LONG` bytes or more. Skips through the section, so most bytes are not read. */
export function hasLongString(strings: Uint8Array): boolean {
  for (let at = 0; at + LONG <= strings.length; ) {
    let nul = at + LONG - 1
    while (nul >= at && strings[nul] !== 0) nul-- // a NUL is usually near, so a loop beats `lastIndexOf`
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

/** Checks the total length of the names of a BTF's own types. Errors: `too_large`. */
export function checkNames(btf: NamedTypes): void {
  let left = MOST * btf.bytes.length
  const take = (id: number, at: number) => {
    left -= btf.stringBytes(btf.word(id, at)).length
    if (left < 0)
      throw new BtfError(
        'too_large',
        `the names have more than ${MOST} bytes per byte of BTF`,
        btf.recordAt(id) + at,
      )
  }
  for (let id = btf.startId; id < btf.endId; id++) {
    take(id, 0)
    const layout = KINDS[btf.kind(id)]
    if (!layout || layout.elementName < 0) continue
    const elements = HEADER_SIZE + layout.payload + layout.elementName
    for (let i = 0; i < btf.vlen(id); i++) take(id, elements + i * layout.element)
  }
}
