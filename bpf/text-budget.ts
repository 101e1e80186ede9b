/*
 * Limits the text that is printed for a BTF: a fixed number of characters plus some per byte of BTF. Without the limit a
 * small file could exceed memory: names may be tails of one long string, anonymous structs may contain each other
 * twice, and gaps may be as large as a header claims. Real kernels need 2 characters per byte.
 */

import type { Btf } from './btf.ts'
import { BtfError } from './error.ts'

const START = 1 << 20
const PER_BYTE = 32

export class TextBudget {
  #left = START

  constructor(btf: Btf) {
    for (let owner: Btf | undefined = btf; owner; owner = owner.base) {
      this.#left += PER_BYTE * owner.bytes.length
    }
  }

  /** Counts a text and returns it. Errors: `too_large`. */
  take(text: string): string {
    this.spend(text.length + 1)
    return text
  }

  /** Counts characters, or steps that lead to characters. Errors: `too_large`. */
  spend(count: number): void {
    this.#left -= count
    if (this.#left < 0) {
      throw new BtfError(
        'too_large',
        `the types print as more than ${PER_BYTE} characters per byte of BTF`,
      )
    }
  }
}
