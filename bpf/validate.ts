/*
 * The validating pass over the types. It finds where each record begins and checks that the record ends within the
 * section, that every name lies in the strings, and that every id names a type. Afterwards decoding needs no checks.
 * The checks are those of libbpf (src/btf.c `btf_parse_type_sec`, `btf_sanity_check`).
 *
 * The end of the ids is not known before the last record. So the pass keeps the highest id and name, and searches for
 * the invalid reference only if one of them is out of bounds.
 */

import { viewOf, wordsOf } from './bytes.ts'
import { BtfError } from './error.ts'
import type { BtfHeader, Extent } from './header.ts'
import { HEADER_SIZE, KIND, KINDS, type KindLayout, kindName, MAX_KINDS } from './kind.ts'

/** The ids and names that the types may refer to. */
export interface ValidationScope {
  /** id of the first type: 1, or the base's `endId` */
  readonly startId: number
  /** bytes of the base's strings and of this BTF's own together */
  readonly stringsEnd: number
  /** Kind number of a type of the base. */
  baseKind(id: number): number
}

/** Record sizes in bytes by kind; `payload` is -1 for a kind that nothing describes. */
export interface Sizes {
  readonly payload: Int32Array
  readonly element: Int32Array
}

/** Sizes of known kinds from the table; of unknown ones from the file's layout section, or from its base's. */
export function sizesOf(view: DataView, layout: Extent, base: Sizes | undefined): Sizes {
  const payload = base ? base.payload.slice() : new Int32Array(MAX_KINDS).fill(-1)
  const element = base ? base.element.slice() : new Int32Array(MAX_KINDS)
  for (let kind = 0; layout.start + kind * 4 < layout.end && kind < MAX_KINDS; kind++) {
    const at = layout.start + kind * 4
    const sizes = [view.getUint8(at), view.getUint8(at + 1)] as const
    if (sizes[0] % 4 !== 0 || sizes[1] % 4 !== 0) {
      throw new BtfError(
        'invalid_header',
        `sizes ${sizes[0]} and ${sizes[1]} of kind ${kind} in the layout section: expected multiples of 4`,
        at,
      )
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

/** A column of the table of kinds, in words instead of bytes; -1 where a kind has no value. */
const inWords = (of: (kind: KindLayout) => number | undefined): Int32Array =>
  Int32Array.from({ length: MAX_KINDS }, (_, kind) => {
    const bytes = KINDS[kind] && of(KINDS[kind])
    return bytes === undefined || bytes < 0 ? -1 : bytes / WORD
  })
const names = inWords((kind) => kind.elementName)
const ids = inWords((kind) => kind.elementIds[0])
/** of a LOCSEC only */
const secondIds = inWords((kind) => kind.elementIds[1])

/** The word of the nth id of a record, and a mask for it. A kind without that id has the name's word and mask 0. */
function idOf(n: 0 | 1): { at: Int32Array; mask: Int32Array } {
  const at = inWords((kind) => kind.ids[n])
  return {
    at: at.map((words) => Math.max(words, 0)),
    mask: at.map((words) => (words < 0 ? 0 : -1)),
  }
}
const [{ at: firstId, mask: hasFirst }, { at: secondId, mask: hasSecond }] = [idOf(0), idOf(1)]

export interface Validated {
  /** byte offset of every record, from the start of the BTF */
  readonly offsets: Uint32Array
  /** kind number of every type */
  readonly kinds: Uint8Array
  /** number of types of each kind */
  readonly counts: Uint32Array
}

/** Validates the types. Errors: `invalid_type`, `invalid_kind`, `invalid_name`, `invalid_type_id`, each with its offset. */
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
  /** all names and ids OR-ed: negative if one is 2³¹ or more, and so out of bounds */
  let all = 0
  /** some FUNC does not refer to an earlier FUNC_PROTO, so the slow check decides */
  let doubtful = false
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
      throw new BtfError('invalid_type', `a ${kindName(kind)} is cut off`, place)
    }

    const name = words[at]!
    all |= name
    if (name > maxName) maxName = name
    // masks instead of branches, which the processor could not predict
    const first = words[at + firstId[kind]!]! & hasFirst[kind]!
    const second = words[at + secondId[kind]!]! & hasSecond[kind]!
    all |= first | second
    if (first > maxId) maxId = first
    if (second > maxId) maxId = second
    if (step > 0 && kind < knownKinds) {
      // one loop per shape of elements: without a branch inside, it takes half the time
      const idAt = ids[kind]!
      if (idAt < 0 && names[kind]! < 0) {
        // the values of a LOC_PARAM
      } else if (idAt < 0) {
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
        const secondAt = secondIds[kind]!
        for (let e = elements + secondAt; secondAt >= 0 && e < next; e += step) {
          const id = words[e]!
          all |= id
          if (id > maxId) maxId = id
        }
      }
    }
    if (kind === KIND.FUNC && kinds[words[at + 2]! - startId] !== KIND.FUNC_PROTO) doubtful = true
    offsets[count] = place
    kinds[count++] = kind
    counts[kind]!++
    at = next
  }
  const end = types.start + at * WORD
  if (end !== types.end) throw new BtfError('invalid_type', 'the last type is cut off', end)

  const validated = { offsets: offsets.slice(0, count), kinds: kinds.slice(0, count), counts }
  const endId = startId + count
  if (all < 0 || maxName >= scope.stringsEnd || maxId >= endId) {
    findCulprit(viewOf(bytes), header, sizes, scope, validated.offsets, endId)
  }
  if (doubtful) checkFunctions(words, types.start, scope, validated)
  return validated
}

/** Checks that every FUNC refers to a FUNC_PROTO, as libbpf does. Errors: `invalid_type`. */
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
      throw new BtfError(
        'invalid_type',
        `a FUNC refers to a ${kindName(kind)}: expected a FUNC_PROTO`,
        offsets[i],
      )
    }
  }
}

/** Finds the reference that is out of bounds and throws its error. */
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
    if (name >= scope.stringsEnd)
      throw new BtfError(
        'invalid_name',
        `invalid string offset ${name}: expected less than ${scope.stringsEnd}`,
        at,
      )
  }
  const checkId = (at: number) => {
    const id = view.getUint32(at, little)
    if (id >= endId)
      throw new BtfError(
        'invalid_type_id',
        `invalid type id ${id}: expected less than ${endId}`,
        at,
      )
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
      for (const id of known.elementIds) checkId(element + id)
    }
  }
  throw new BtfError('invalid_type', 'a reference is out of bounds')
}
