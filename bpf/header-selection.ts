/*
 * The part of a C header that objects use. The header has to compile with an object's source, so it has what the object's
 * BTF names: the kernel's types of the same names, with all their members. Constants leave no trace in an object, and the
 * headers of libbpf need some integer types: so the enums of the BPF API and these integers are always in it.
 */

import type { Btf } from './btf.ts'
import { decodeLatin1, decodeText, encodeText } from './bytes.ts'
import { essentialName } from './flavour.ts'
import { KIND } from './kind.ts'
import type { BpfObject } from './object.ts'

/** The part of a kernel that a header has. Types that these need come with them. */
export interface HeaderSelection {
  /** ids of types, in order */
  readonly types: readonly number[]
  /** names of functions that programs may call */
  readonly kfuncs: ReadonlySet<string>
}

/** The integers of linux/types.h that libbpf's bpf_helper_defs.h and bpf_endian.h use. */
const INTEGERS: readonly string[] = [
  ...['__u8', '__u16', '__u32', '__u64', '__s8', '__s16', '__s32', '__s64'],
  ...['__be16', '__be32', '__be64', '__le16', '__le32', '__le64', '__wsum', 'bool'],
]

/** The first enumerators of the enums in include/uapi/linux/bpf.h begin with one of these. */
const API_PREFIXES = ['BPF_', 'XDP_'].map((prefix) => encodeText(prefix))

/** Selects what objects use of a kernel. A type that an object names and the kernel lacks is left out. */
export function selectHeader(kernel: Btf, objects: readonly BpfObject[]): HeaderSelection {
  const { tags, typedefs } = namesIn(objects)
  const types: number[] = []
  for (let id = 1; id < kernel.endId; id++) {
    const kind = kernel.kind(id)
    const isTag = isTagged(kind)
    if (!isTag && kind !== KIND.TYPEDEF) continue
    const isWanted =
      (isTag ? tags : typedefs).has(keyOf(kernel, id)) || (isEnum(kind) && isOfApi(kernel, id))
    if (isWanted) types.push(id)
  }
  const kfuncs = objects.flatMap(({ externs }) =>
    externs.filter(({ kind }) => kind === 'kfunc').map(({ name }) => essential(name)),
  )
  return { types, kfuncs: new Set(kfuncs) }
}

/** The names that objects give to types: tags of structs, unions and enums, and typedefs. */
function namesIn(objects: readonly BpfObject[]): { tags: Set<string>; typedefs: Set<string> } {
  const tags = new Set<string>()
  const typedefs = new Set<string>(INTEGERS)
  for (const { btf } of objects)
    for (let id = 1; id < btf.endId; id++) {
      const kind = btf.kind(id)
      if (isTagged(kind)) tags.add(keyOf(btf, id))
      else if (kind === KIND.TYPEDEF) typedefs.add(keyOf(btf, id))
    }
  tags.delete('')
  return { tags, typedefs }
}

const isEnum = (kind: number): boolean => kind === KIND.ENUM || kind === KIND.ENUM64

const isTagged = (kind: number): boolean =>
  kind === KIND.STRUCT || kind === KIND.UNION || isEnum(kind)

/** A name without its flavour, as text that compares. */
const keyOf = (btf: Btf, id: number): string =>
  decodeLatin1(essentialName(btf.stringBytes(btf.word(id, 0))))

const essential = (name: string): string => decodeText(essentialName(encodeText(name)))

function isOfApi(btf: Btf, id: number): boolean {
  if (btf.vlen(id) === 0) return false
  const first = btf.stringBytes(btf.word(id, 12))
  return API_PREFIXES.some((prefix) => prefix.every((byte, i) => first[i] === byte))
}
