/*
 * Merges the strings of a base and of split BTFs over it into one section: the base's section, then each new string
 * once. Equal texts get one offset, wherever they are stored.
 */

import type { Btf } from './btf.ts'
import { decodeLatin1, encodeLatin1 } from './bytes.ts'

export class MergedStrings {
  readonly #base: Btf
  /** text → offset in the merged section */
  readonly #offsets = new Map<string, number>([['', 0]])
  /** for each BTF, offset in its own section → offset in the merged section plus one; 0 where not known yet */
  readonly #known = new Map<Btf, Int32Array>()
  readonly #added: string[] = []
  #end: number

  /** Callers ask for the base's own strings first, so that these keep their offsets. */
  constructor(base: Btf) {
    this.#base = base
    this.#end = base.stringsEnd
  }

  /** Translates a string offset of a BTF into an offset in the merged section. */
  offset(btf: Btf, at: number): number {
    const owner = at < btf.stringsStart ? this.#base : btf
    let known = this.#known.get(owner)
    if (!known) {
      known = new Int32Array(owner.strings.length)
      this.#known.set(owner, known)
    }
    const start = at - owner.stringsStart
    if (known[start] === 0) known[start] = this.#intern(owner, start) + 1
    return known[start]! - 1
  }

  #intern(owner: Btf, start: number): number {
    const { strings } = owner
    const text = decodeLatin1(strings.subarray(start, strings.indexOf(0, start)))
    const offset = this.#offsets.get(text)
    if (offset !== undefined) return offset
    const next = owner === this.#base ? start : this.#end
    this.#offsets.set(text, next)
    if (next !== this.#end) return next
    this.#added.push(text)
    this.#end += text.length + 1
    return next
  }

  /** The part of the merged section that follows the base's section. */
  added(): Uint8Array {
    return encodeLatin1(this.#added.map((text) => `${text}\0`).join(''))
  }
}
