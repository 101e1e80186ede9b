/* Reads the record of a type as words, to compare or copy types without decoding them. */

import type { Btf } from './btf.ts'
import { BtfError } from './error.ts'
import { HEADER_SIZE, KINDS, kindName } from './kind.ts'

/**
 * Appends the words of a type's record to `words`, with its names mapped by `nameOf` and its type ids by `idOf`. Errors:
 * `unsupported` for a kind that only a layout section describes.
 */
export function readRecord(
  btf: Btf,
  id: number,
  words: number[],
  nameOf: (offset: number) => number,
  idOf: (id: number) => number,
): void {
  const kind = btf.kind(id)
  const layout = KINDS[kind]
  if (!layout || id === 0)
    throw new BtfError('unsupported', `unsupported kind ${kindName(kind)} of type ${id}`)
  words.push(nameOf(btf.word(id, 0)), btf.word(id, 4))
  const third = btf.word(id, 8)
  words.push(layout.third === 'type' ? idOf(third) : layout.third === 'size' ? third : 0)
  const elements = HEADER_SIZE + layout.payload
  for (let at = HEADER_SIZE; at < elements; at += 4) {
    const word = btf.word(id, at)
    words.push(layout.ids.includes(at) ? idOf(word) : word)
  }
  if (layout.element === 0) return
  const end = elements + btf.vlen(id) * layout.element
  for (let element = elements; element < end; element += layout.element) {
    for (let at = 0; at < layout.element; at += 4) {
      const word = btf.word(id, element + at)
      if (at === layout.elementName) words.push(nameOf(word))
      else words.push(layout.elementIds.includes(at) ? idOf(word) : word)
    }
  }
}
