/*
 * Merging: the split BTFs of modules over one base as one self-contained BTF, for those who take a single file. The
 * base stays what it is, ids, records and strings; the types that modules add follow it, equal ones once (see
 * equality.ts). They are written as one split BTF, of which the base is then made a part.
 */

import type { Btf } from './btf.ts'
import { viewOf } from './bytes.ts'
import { encodeBtf } from './encode.ts'
import { findEqual } from './equality.ts'
import { BtfError } from './error.ts'
import { TypeGraph } from './graph.ts'
import { parseHeader } from './header.ts'
import { renumbered } from './renumber.ts'
import type { BtfType } from './type.ts'

/**
 * One BTF with all types of the base, under their ids, and then those of the modules: of types with equal graphs the
 * first, but every VAR and DATASEC, and no FWD of a module whose struct or union is known. Types that differ stay, of
 * one name or not. Errors: `unsupported` for a kind that only a layout section describes, and for a module that was not
 * opened over this base.
 */
export function mergeBtf(base: Btf, modules: readonly Btf[]): Uint8Array {
  if (base.base || modules.some((module) => module.base !== base)) {
    throw new BtfError('unsupported', 'modules merge with the BTF that they were opened over')
  }
  const types = addedTypes(base, [...new Set(modules)])
  const split = encodeBtf(types, { base, byteOrder: base.byteOrder })
  return joined(base, split)
}

/** What the modules add to the base, with ids that continue the base's. */
function* addedTypes(base: Btf, modules: readonly Btf[]): Generator<BtfType> {
  const graph = new TypeGraph(base, modules)
  const equal = findEqual(graph, base.endId)
  const ids = new Int32Array(graph.size)
  let next = base.endId
  equal.forEach((first, node) => {
    if (first === node) ids[node] = node < base.endId ? node : next++
  })
  for (const module of modules) {
    const idOf = (id: number) => ids[equal[graph.nodeOf(module, id)]!]!
    for (let id = module.startId; id < module.endId; id++) {
      const node = graph.nodeOf(module, id)
      if (equal[node] === node) yield renumbered(module.type(id), idOf)
    }
  }
}

/** The base, and the split BTF that continues it, as one. */
function joined(base: Btf, split: Uint8Array): Uint8Array {
  const header = parseHeader(split)
  const types = [
    base.bytes.subarray(base.header.types.start, base.header.types.end),
    split.subarray(header.types.start, header.types.end),
  ]
  const strings = [base.strings, split.subarray(header.strings.start, header.strings.end)]
  const bytes = Buffer.concat([split.subarray(0, header.headerSize), ...types, ...strings])
  const typesSize = types[0]!.length + types[1]!.length
  const view = viewOf(bytes)
  const little = base.byteOrder === 'little'
  view.setUint32(12, typesSize, little)
  view.setUint32(16, typesSize, little)
  view.setUint32(20, bytes.length - header.headerSize - typesSize, little)
  return bytes
}
