/*
 * The strings of a base and of BTFs over it as one section: that of the base, and after it, once each, what the others
 * add. An offset in it stands for a text, wherever that is stored.
 */

import type { Btf } from './btf.ts'
import { decodeLatin1, encodeLatin1 } from './bytes.ts'

export class MergedStrings {
  readonly #base: Btf
  /** offsets in the merged section, by text */
  readonly #offsets = new Map<string, number>([['', 0]])
  /** by BTF, and by offset in its own section, one more than the offset in the merged section */
  readonly #known = new Map<Btf, Int32Array>()
  readonly #added: string[] = []
  #end: number

  /** The base's own strings are to be asked for before those of the others. */
  constructor(base: Btf) {
    this.#base = base
    this.#end = base.stringsEnd
  }

  /** The offset in the merged section of the string at an offset of a BTF. */
  offset(btf: Btf, at: number): number {
    const home = at < btf.stringsStart ? this.#base : btf
    let known = this.#known.get(home)
    if (!known) {
      known = new Int32Array(home.strings.length)
      this.#known.set(home, known)
    }
    const start = at - home.stringsStart
    if (known[start] === 0) known[start] = this.#intern(home, start) + 1
    return known[start]! - 1
  }

  #intern(home: Btf, start: number): number {
    const { strings } = home
    const text = decodeLatin1(strings.subarray(start, strings.indexOf(0, start)))
    const offset = this.#offsets.get(text)
    if (offset !== undefined) return offset
    const next = home === this.#base ? start : this.#end
    this.#offsets.set(text, next)
    if (next !== this.#end) return next
    this.#added.push(text)
    this.#end += text.length + 1
    return next
  }

  /** What the merged section has after the base's. */
  added(): Uint8Array {
    return encodeLatin1(this.#added.map((text) => `${text}\0`).join(''))
  }
}
