/*
 * Merging: the split BTFs of modules over one base as one self-contained BTF, for those who take a single file. The
 * base stays what it is, ids, records and strings; the types that modules add follow it, equal ones once (see
 * equality.ts), their records copied with other ids and names.
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
 * One BTF with all types of the base, under their ids, and then those of the modules: of types with equal graphs the
 * first, but every VAR and DATASEC, and no declaration of a module's whose definition is known. Types that differ stay, of
 * one name or not. Errors: `unsupported` for a kind that only a layout section describes, and for a module that was not
 * opened over this base.
 */
export function mergeBtf(base: Btf, modules: readonly Btf[]): Uint8Array {
  if (base.base || modules.some((module) => module.base !== base)) {
    throw new BtfError('unsupported', 'modules merge with the BTF that they were opened over')
  }
  const strings = new MergedStrings(base)
  const words = ownWords(base)
  appendTypes(words, base, [...new Set(modules)], strings)
  return assemble(words, concatBytes([base.strings, strings.added()]), base.byteOrder)
}

/** Its type section as it is. */
function ownWords({ view, header, byteOrder }: Btf): number[] {
  const words: number[] = []
  for (let at = header.types.start; at < header.types.end; at += 4) {
    words.push(view.getUint32(at, byteOrder === 'little'))
  }
  return words
}

/** Appends the records of what the modules add to the base, whose ids they continue. */
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
