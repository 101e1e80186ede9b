/*
 * Relocates split BTF from its distilled base onto the BTF of a kernel. A module that is built outside the kernel's tree
 * has both (`.BTF.base` and `.BTF`, since Linux 6.11), because the ids of the kernel's types may change with each build.
 * The distilled base holds the name and size of each type of the kernel that the module refers to, without its members.
 *
 * The rules, and the bytes of the result, are those of libbpf's `btf__relocate` (src/btf_relocate.c), which the kernel
 * uses too. Records keep their place and length; only ids and names in them change, and strings stay as they are.
 */

import type { Btf } from './btf.ts'
import { decodeLatin1, viewOf } from './bytes.ts'
import { isComposite } from './compatible.ts'
import { BtfError } from './error.ts'
import { HEADER_SIZE, KIND, KINDS, kindName } from './kind.ts'

/** Steps from a member to a struct that it embeds; libbpf has no limit. */
const MAX_STEPS = 256
/** A `btf_name_info` holds 31 bits of a size. */
const SIZE_BITS = 0x7fffffff

/**
 * The bytes of `split`, which was opened over its distilled base, as split BTF over the kernel's BTF. Errors:
 * `base_mismatch` where the kernel has no such type, or several; `invalid_type` for a distilled base with types that no
 * distilled base has; `invalid_name`; `cycle`; `unsupported` for a kind that only a layout section describes, or a kernel
 * that is split BTF itself.
 */
export function relocateBase(split: Btf, kernel: Btf): Uint8Array {
  const distilled = split.base
  if (!distilled || distilled.base || kernel.base)
    throw new BtfError(
      'unsupported',
      'cannot relocate: expected split BTF, and a kernel that is not',
    )
  if (split.byteOrder !== kernel.byteOrder)
    throw new BtfError(
      'base_mismatch',
      `the module is ${split.byteOrder}-endian, but the kernel is ${kernel.byteOrder}-endian`,
    )
  checkDistilled(distilled)
  const { ids, names } = mapDistilled(distilled, kernel, embeddedIn(split, distilled))
  const bytes = new Uint8Array(split.bytes) // a copy: `slice` of a Buffer is none
  const view = viewOf(bytes)
  const little = split.byteOrder === 'little'
  const moved = (at: number, map: (value: number) => number) =>
    view.setUint32(at, map(view.getUint32(at, little)), little)
  const idOf = (id: number) =>
    id < distilled.endId ? ids[id]! : id - distilled.endId + kernel.endId
  const nameOf = (offset: number) => {
    if (offset >= distilled.stringsEnd) return offset - distilled.stringsEnd + kernel.stringsEnd
    const name = offset === 0 ? 0 : names.get(offset)
    if (name === undefined)
      throw new BtfError(
        'invalid_name',
        `string ${offset} of the distilled base is not the name of a type`,
      )
    return name
  }
  for (let id = split.startId; id < split.endId; id++) {
    const layout = KINDS[split.kind(id)]
    if (!layout)
      throw new BtfError(
        'unsupported',
        `unsupported kind ${kindName(split.kind(id))} of type ${id}`,
      )
    const start = split.recordAt(id)
    moved(start, nameOf)
    for (const at of layout.ids) moved(start + at, idOf)
    if (layout.element === 0) continue
    const { element, elementName, elementIds } = layout
    for (let i = 0; i < split.vlen(id); i++) {
      const at = start + HEADER_SIZE + layout.payload + i * element
      if (elementName >= 0) moved(at + elementName, nameOf)
      for (const elementId of elementIds) moved(at + elementId, idOf)
    }
  }
  return bytes
}

const DISTILLED_KINDS: ReadonlySet<number> = new Set([
  KIND.INT,
  KIND.FLOAT,
  KIND.ENUM,
  KIND.STRUCT,
  KIND.UNION,
  KIND.FWD,
])

function checkDistilled(distilled: Btf): void {
  for (let id = 1; id < distilled.endId; id++) {
    const kind = distilled.kind(id)
    const named = distilled.word(id, 0) !== 0
    if (DISTILLED_KINDS.has(kind) && named) continue
    throw new BtfError(
      'invalid_type',
      `type ${id} of the distilled base is ${named ? '' : 'an anonymous '}${kindName(kind)}: expected a named INT, FLOAT, ENUM, STRUCT, UNION or FWD`,
    )
  }
}

/** The structs and unions of the distilled base that types of the module embed, so that their sizes must not change. */
function embeddedIn(split: Btf, distilled: Btf): ReadonlySet<number> {
  const embedded = new Set<number>()
  for (let id = split.startId; id < split.endId; id++) {
    if (!isComposite(split.kind(id))) continue
    for (let i = 0; i < split.vlen(id); i++) {
      const type = elementOf(split, split.word(id, HEADER_SIZE + i * 12 + 4))
      if (type < distilled.endId && isComposite(split.kind(type))) embedded.add(type)
    }
  }
  return embedded
}

/** A type without typedefs, qualifiers, tags and arrays. */
function elementOf(btf: Btf, id: number): number {
  let current = id
  for (let step = 0; step < MAX_STEPS; step++) {
    switch (btf.kind(current)) {
      case KIND.CONST:
      case KIND.RESTRICT:
      case KIND.VOLATILE:
      case KIND.TYPEDEF:
      case KIND.TYPE_TAG:
        current = btf.sizeOrType(current)
        break
      case KIND.ARRAY:
        current = btf.word(current, HEADER_SIZE)
        break
      default:
        return current
    }
  }
  throw new BtfError('cycle', `type ${id} is a chain of more than ${MAX_STEPS} references`)
}

/** The kernel's ids of the distilled types, by their ids, and the kernel's offsets of their names, by their offsets. */
interface Mapping {
  ids: Uint32Array
  names: Map<number, number>
}

function mapDistilled(distilled: Btf, kernel: Btf, embedded: ReadonlySet<number>): Mapping {
  // void, which has no name, is what libbpf finds for an empty name; it refuses both then
  const byName = new Map<string, number[]>([['', [0]]])
  for (let id = 1; id < distilled.endId; id++) {
    const name = nameOf(distilled, id)
    const same = byName.get(name)
    if (same) same.push(id)
    else byName.set(name, [id])
  }
  const composites = countComposites(kernel)
  const ids = new Uint32Array(distilled.endId)
  const names = new Map<number, number>()
  for (let id = 1; id < kernel.endId; id++) {
    const name = kernel.word(id, 0)
    const kind = kernel.kind(id)
    if (name === 0 || !(DISTILLED_KINDS.has(kind) || kind === KIND.ENUM64)) continue
    // the name alone tells structs apart, unless the kernel has several of this name
    const sized = isComposite(kind) ? composites.get(name)! > 1 : kind !== KIND.FWD
    const size = kernel.sizeOrType(id)
    for (const old of byName.get(nameOf(kernel, id)) ?? []) {
      if (sized && (distilled.sizeOrType(old) & SIZE_BITS) !== (size & SIZE_BITS)) continue
      if (old === 0)
        throw new BtfError('invalid_name', `type ${id} of the kernel has an empty name`)
      if (!isSame(distilled, old, kernel, id)) continue
      if (embedded.has(old) && distilled.sizeOrType(old) !== size) continue
      if (ids[old] !== 0)
        throw new BtfError(
          'base_mismatch',
          `the kernel has several types ${distilled.name(old)} of the same size: ${ids[old]} and ${id}`,
        )
      ids[old] = id
      names.set(distilled.word(old, 0), name)
    }
  }
  for (let id = 1; id < distilled.endId; id++) {
    if (ids[id] !== 0) continue
    const [kind, size] = [kindName(distilled.kind(id)), distilled.sizeOrType(id)]
    const sized = kind === 'FWD' ? '' : ` that fits ${size} bytes`
    throw new BtfError(
      'base_mismatch',
      `the kernel has no ${kind} ${distilled.name(id)}${sized}: the module was built for another kernel`,
    )
  }
  return { ids, names }
}

const nameOf = (btf: Btf, id: number): string => decodeLatin1(btf.stringBytes(btf.word(id, 0)))

/** The number of structs and unions by the offset of their name. */
function countComposites(btf: Btf): Map<number, number> {
  const counts = new Map<number, number>()
  for (let id = 1; id < btf.endId; id++) {
    if (!isComposite(btf.kind(id))) continue
    const name = btf.word(id, 0)
    counts.set(name, (counts.get(name) ?? 0) + 1)
  }
  return counts
}

/** True if a distilled type can stand for a kernel's type of the same name: an ENUM64 is distilled to an ENUM. */
function isSame(distilled: Btf, old: number, kernel: Btf, id: number): boolean {
  const [was, is] = [distilled.kind(old), kernel.kind(id)]
  switch (was) {
    case KIND.FWD: {
      const union = distilled.flag(old)
      if (is === KIND.FWD) return union === kernel.flag(id)
      // libbpf reads the flag of a definition, too: that of a struct with bitfields is set, a union's hardly ever
      return (is === KIND.STRUCT && !kernel.flag(id)) || (is === KIND.UNION && kernel.flag(id))
    }
    case KIND.INT:
      return is === KIND.INT && encodingOf(distilled, old) === encodingOf(kernel, id)
    case KIND.FLOAT:
      return is === KIND.FLOAT
    case KIND.ENUM:
      return is === KIND.ENUM || is === KIND.ENUM64
    default:
      return true // libbpf does not compare the kind with that of a struct or union
  }
}

/** `btf_int_encoding`: signed, char, bool. */
const encodingOf = (btf: Btf, id: number): number => (btf.word(id, HEADER_SIZE) >>> 24) & 0x0f
