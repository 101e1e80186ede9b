/* Finds types and functions by a part of their name. */

import type { Btf } from './btf.ts'
import { decodeText } from './bytes.ts'
import { SORT_OF_KIND, type TypeName, type TypeSort } from './type-shape.ts'

/** Sorts that are not searched: forward declarations, and the types of C itself. */
const LEFT_OUT: ReadonlySet<TypeSort> = new Set(['fwd', 'int', 'float'])

/** Names that are collected before they are ranked. */
const MAX_FOUND = 20_000

/**
 * The types and functions whose name contains a text, in ASCII letters of either case: equal names first, then names that
 * begin with it, then short ones. At most `limit`. Errors: those of `Btf`.
 */
export function searchNames(btf: Btf, text: string, limit: number): TypeName[] {
  const offsets = stringsWith(btf, text.toLowerCase())
  const found = new Map<string, TypeName>()
  for (let id = btf.startId; id < btf.endId && found.size < MAX_FOUND; id++) {
    const kind = SORT_OF_KIND[btf.kind(id)]
    if (kind === undefined || LEFT_OUT.has(kind)) continue
    const name = offsets.get(btf.word(id, 0))
    if (name !== undefined) found.set(`${kind} ${name}`, { kind, name })
  }
  const rank = ({ name }: TypeName): number => {
    if (name === text) return 0
    const lower = name.toLowerCase()
    return lower === text.toLowerCase() ? 1 : lower.startsWith(text.toLowerCase()) ? 2 : 3
  }
  return [...found.values()]
    .sort((a, b) => rank(a) - rank(b) || a.name.length - b.name.length)
    .slice(0, limit)
}

/** The strings that contain a text, by their offsets. */
function stringsWith(btf: Btf, lower: string): Map<number, string> {
  const found = new Map<number, string>()
  if (lower === '') return found
  const text = LATIN.decode(btf.strings)
  const folded = text.toLowerCase()
  for (let at = folded.indexOf(lower); at >= 0 && found.size < MAX_FOUND; ) {
    const start = text.lastIndexOf('\0', at) + 1
    const end = text.indexOf('\0', at)
    found.set(btf.stringsStart + start, decodeText(btf.strings.subarray(start, end)))
    at = folded.indexOf(lower, end)
  }
  return found
}

/** One character a byte, so that places in the text are those of the bytes. */
const LATIN = new TextDecoder('latin1')
