/*
 * Room for text that is made of a BTF: so many characters for each of its bytes, and a start. Without it names that
 * are tails of one long string, anonymous structs that name each other twice, and gaps as large as a header says would
 * make more of a small file than memory holds. Real kernels have 2 characters for a byte.
 */

import type { Btf } from './btf.ts'
import { BtfError } from './error.ts'

const START = 1 << 20
const PER_BYTE = 32

export class TextBudget {
  #left = START

  constructor(btf: Btf) {
    for (let home: Btf | undefined = btf; home; home = home.base) {
      this.#left += PER_BYTE * home.bytes.length
    }
  }

  /** The same text, counted. Errors: `too_large`. */
  take(text: string): string {
    this.spend(text.length + 1)
    return text
  }

  /** Counts characters, or steps on the way to them. Errors: `too_large`. */
  spend(count: number): void {
    this.#left -= count
    if (this.#left < 0) {
      throw new BtfError('too_large', 'the types take more text than BTF is meant for')
    }
  }
}
