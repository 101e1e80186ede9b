/*
 * Merges the split BTF of modules and their common base into one self-contained BTF, for loaders that take a single file.
 * The base keeps its ids, records and strings. The types of the modules follow, equal types once (see equality.ts); their
 * records are copied with new ids and string offsets.
 */

import type { Btf } from './btf.ts'
import { concatBytes } from './bytes.ts'
import { assemble } from './encode.ts'
import { findEqual } from './equality.ts'
import { BtfError } from './error.ts'
import { TypeGraph } from './graph.ts'
import { readRecord } from './raw-type.ts'
import { MergedStrings } from './strings.ts'

/**
 * Merges modules with their base. All types of the base keep their ids. Of equal types the first is kept, except that
 * every VAR, DATASEC and LOCSEC is kept; a module's declaration is dropped if its definition is known. Different types stay, even
 * with the same name. Errors: `unsupported` for a kind that only a layout section describes, and for a module that was
 * not opened over this base.
 */
export function mergeBtf(base: Btf, modules: readonly Btf[]): Uint8Array {
  if (base.base || modules.some((module) => module.base !== base)) {
    throw new BtfError(
      'unsupported',
      'cannot merge: every module must have been opened with this BTF as its base',
    )
  }
  const strings = new MergedStrings(base)
  const words = ownWords(base)
  appendTypes(words, base, [...new Set(modules)], strings)
  return assemble(words, concatBytes([base.strings, strings.added()]), base.byteOrder)
}

/** The words of a BTF's type section. */
function ownWords({ view, header, byteOrder }: Btf): number[] {
  const words: number[] = []
  for (let at = header.types.start; at < header.types.end; at += 4) {
    words.push(view.getUint32(at, byteOrder === 'little'))
  }
  return words
}

/** Appends the records of the modules' new types, whose ids continue those of the base. */
function appendTypes(
  words: number[],
  base: Btf,
  modules: readonly Btf[],
  strings: MergedStrings,
): void {
  const graph = new TypeGraph(base, modules, strings)
  const equal = findEqual(graph, base.endId)
  const ids = new Int32Array(graph.size)
  let next = 0
  equal.forEach((first, node) => {
    if (first === node) ids[node] = next++
  })
  for (const module of modules) {
    const nameOf = (offset: number) => strings.offset(module, offset)
    const idOf = (id: number) => ids[equal[graph.nodeOf(module, id)]!]!
    for (let id = module.startId; id < module.endId; id++) {
      const node = graph.nodeOf(module, id)
      if (equal[node] === node) readRecord(module, id, words, nameOf, idOf)
    }
  }
}
