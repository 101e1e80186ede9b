/*
 * The one pass over the types that everything later rests on: where each record begins, that it ends within the
 * section, that every name lies in the strings and every id names a type. After it, decoding needs no checks.
 * What is checked is what libbpf checks (src/btf.c `btf_parse_type_sec`, `btf_sanity_check`).
 *
 * A forward reference cannot be judged when it is met, so the pass keeps the highest id and name it saw, and looks for
 * the culprit only when one of them is out of bounds.
 */

import { viewOf, wordsOf } from './bytes.ts'
import { BtfError } from './error.ts'
import type { BtfHeader, Extent } from './header.ts'
import { HEADER_SIZE, KIND, KINDS, type KindLayout, kindName, MAX_KINDS } from './kind.ts'

/** What the types may refer to, besides themselves. */
export interface ValidationScope {
  /** id of the first type of this blob: 1, or the base's number of types and one */
  readonly startId: number
  /** length of the base's strings and this blob's together */
  readonly stringsEnd: number
  /** the kind of a type of the base */
  baseKind(id: number): number
}

/** Record sizes by kind; a kind nobody described has -1. */
export interface Sizes {
  readonly payload: Int32Array
  readonly element: Int32Array
}

/** Sizes for the kinds of the table, then for unknown ones from the file's layout section, else from its base's. */
export function sizesOf(view: DataView, layout: Extent, base: Sizes | undefined): Sizes {
  const payload = base ? base.payload.slice() : new Int32Array(MAX_KINDS).fill(-1)
  const element = base ? base.element.slice() : new Int32Array(MAX_KINDS)
  for (let kind = 0; layout.start + kind * 4 < layout.end && kind < MAX_KINDS; kind++) {
    const at = layout.start + kind * 4
    const sizes = [view.getUint8(at), view.getUint8(at + 1)] as const
    if (sizes[0] % 4 !== 0 || sizes[1] % 4 !== 0) {
      throw new BtfError('invalid_header', `layout of kind ${kind} is not aligned`, at)
    }
    payload[kind] = sizes[0]
    element[kind] = sizes[1]
  }
  KINDS.forEach((known, kind) => {
    payload[kind] = known.payload
    element[kind] = known.element
  })
  return { payload, element }
}

const WORD = 4

/** A column of the table of kinds, bytes in words; -1 where a kind has none. */
const inWords = (of: (kind: KindLayout) => number | undefined): Int32Array =>
  Int32Array.from({ length: MAX_KINDS }, (_, kind) => {
    const bytes = KINDS[kind] && of(KINDS[kind])
    return bytes === undefined || bytes < 0 ? -1 : bytes / WORD
  })
const names = inWords((kind) => kind.elementName)
const ids = inWords((kind) => kind.elementId)

/** Where the nth id of a record is, and a mask of it: for a kind that has none the name's place, and 0. */
function idOf(n: 0 | 1): { at: Int32Array; mask: Int32Array } {
  const at = inWords((kind) => kind.ids[n])
  return {
    at: at.map((words) => Math.max(words, 0)),
    mask: at.map((words) => (words < 0 ? 0 : -1)),
  }
}
const [{ at: firstId, mask: hasFirst }, { at: secondId, mask: hasSecond }] = [idOf(0), idOf(1)]

export interface Validated {
  /** byte offset of every record, from the start of the blob */
  readonly offsets: Uint32Array
  /** kind of every type */
  readonly kinds: Uint8Array
  /** how many types there are of each kind */
  readonly counts: Uint32Array
}

/** Runs the pass. Errors: `invalid_type`, `invalid_kind`, `invalid_name`, `invalid_type_id`, each with its offset. */
export function validate(
  bytes: Uint8Array,
  header: BtfHeader,
  sizes: Sizes,
  scope: ValidationScope,
): Validated {
  const { types, byteOrder } = header
  const words = wordsOf(bytes.subarray(types.start, types.end), byteOrder)
  const payload = sizes.payload.map((size) => (size < 0 ? -1 : size / WORD))
  const element = sizes.element.map((size) => size / WORD)
  const headerWords = HEADER_SIZE / WORD
  const most = Math.floor(words.length / headerWords)
  const offsets = new Uint32Array(most)
  const kinds = new Uint8Array(most)
  const counts = new Uint32Array(MAX_KINDS)
  const knownKinds = KINDS.length
  let count = 0
  let maxName = 0
  let maxId = 0
  /** all names and ids: below zero where one of them is 2³¹ or more, and by far out of bounds */
  let all = 0
  /** a FUNC refers to something else than a FUNC_PROTO before it */
  let odd = false
  const { startId } = scope

  let at = 0
  const last = words.length - headerWords
  while (at <= last) {
    const place = types.start + at * WORD
    const info = words[at + 1]!
    const kind = (info >>> 24) & 0x7f
    const fixed = payload[kind]!
    if (fixed < 0 || kind === 0) throw new BtfError('invalid_kind', `unknown kind ${kind}`, place)
    const step = element[kind]!
    const elements = at + headerWords + fixed
    const next = step === 0 ? elements : elements + step * (info & 0xffffff)
    if (next > words.length) {
      throw new BtfError('invalid_type', `${kindName(kind)} is cut off`, place)
    }

    const name = words[at]!
    all |= name
    if (name > maxName) maxName = name
    // without a question: which kinds have ids cannot be foreseen
    const first = words[at + firstId[kind]!]! & hasFirst[kind]!
    const second = words[at + secondId[kind]!]! & hasSecond[kind]!
    all |= first | second
    if (first > maxId) maxId = first
    if (second > maxId) maxId = second
    if (step > 0 && kind < knownKinds) {
      // a loop for each of the three shapes: without a question in it, it takes half the time
      const idAt = ids[kind]!
      if (idAt < 0) {
        for (let e = elements; e < next; e += step) {
          const elementName = words[e]!
          all |= elementName
          if (elementName > maxName) maxName = elementName
        }
      } else if (names[kind] === 0) {
        for (let e = elements; e < next; e += step) {
          const elementName = words[e]!
          const id = words[e + 1]!
          all |= elementName | id
          if (elementName > maxName) maxName = elementName
          if (id > maxId) maxId = id
        }
      } else {
        for (let e = elements + idAt; e < next; e += step) {
          const id = words[e]!
          all |= id
          if (id > maxId) maxId = id
        }
      }
    }
    if (kind === KIND.FUNC && kinds[words[at + 2]! - startId] !== KIND.FUNC_PROTO) odd = true
    offsets[count] = place
    kinds[count++] = kind
    counts[kind]!++
    at = next
  }
  const end = types.start + at * WORD
  if (end !== types.end) throw new BtfError('invalid_type', 'a type is cut off', end)

  const validated = { offsets: offsets.slice(0, count), kinds: kinds.slice(0, count), counts }
  const endId = startId + count
  if (all < 0 || maxName >= scope.stringsEnd || maxId >= endId) {
    findCulprit(viewOf(bytes), header, sizes, scope, validated.offsets, endId)
  }
  if (odd) checkFunctions(words, types.start, scope, validated)
  return validated
}

/** Every FUNC refers to a FUNC_PROTO: libbpf refuses the whole file otherwise. */
function checkFunctions(
  words: Int32Array,
  start: number,
  scope: ValidationScope,
  { offsets, kinds }: Validated,
): void {
  const { startId } = scope
  for (let i = 0; i < kinds.length; i++) {
    if (kinds[i] !== KIND.FUNC) continue
    const id = words[((offsets[i]! - start) >> 2) + 2]!
    const kind = id < startId ? scope.baseKind(id) : kinds[id - startId]!
    if (kind !== KIND.FUNC_PROTO) {
      throw new BtfError('invalid_type', `FUNC refers to ${kindName(kind)}`, offsets[i])
    }
  }
}

/** Finds the reference that is out of bounds, and throws. */
function findCulprit(
  view: DataView,
  header: BtfHeader,
  sizes: Sizes,
  scope: ValidationScope,
  offsets: Uint32Array,
  endId: number,
): never {
  const little = header.byteOrder === 'little'
  const checkName = (at: number) => {
    const name = view.getUint32(at, little)
    if (name >= scope.stringsEnd) throw new BtfError('invalid_name', `name at ${name}`, at)
  }
  const checkId = (at: number) => {
    const id = view.getUint32(at, little)
    if (id >= endId) throw new BtfError('invalid_type_id', `type ${id} of ${endId}`, at)
  }
  for (const at of offsets) {
    const info = view.getUint32(at + 4, little)
    const kind = (info >>> 24) & 0x7f
    checkName(at)
    const known = KINDS[kind]
    if (!known) continue
    for (const id of known.ids) checkId(at + id)
    if (known.element === 0) continue
    const first = at + HEADER_SIZE + sizes.payload[kind]!
    for (let i = 0; i < (info & 0xffffff); i++) {
      const element = first + i * known.element
      if (known.elementName >= 0) checkName(element + known.elementName)
      if (known.elementId >= 0) checkId(element + known.elementId)
    }
  }
  throw new BtfError('invalid_type', 'a reference is out of bounds')
}
