/*
 * Writes types as BTF. Each string is written once, in order of first use. A given string section is kept as it is and
 * its strings are reused, so BTF that was read is written back unchanged.
 */

import type { Btf } from './btf.ts'
import { type ByteOrder, concatBytes, decodeText, encodeText } from './bytes.ts'
import { BtfError } from './error.ts'
import { BTF_HEADER_SIZE, BTF_MAGIC, BTF_VERSION } from './header.ts'
import { KIND } from './kind.ts'
import { type BtfType, LINKAGES, type Linkage, type Member } from './type.ts'

export interface EncodeOptions {
  /** default: little */
  readonly byteOrder?: ByteOrder
  /** the BTF that the types continue, for split BTF */
  readonly base?: Btf
  /** a string section to start with, usually that of the BTF that the types come from */
  readonly strings?: Uint8Array
}

/**
 * Encodes types, whose ids are consecutive from 1 or from the base's `endId`. The header has 24 bytes. Errors:
 * `invalid_type` for an id out of order or a value that does not fit its field, `unsupported` for a kind that only a
 * layout section describes.
 */
export function encodeBtf(types: Iterable<BtfType>, options: EncodeOptions = {}): Uint8Array {
  const strings = new StringTable(options.base, options.strings)
  const words: number[] = []
  let id = options.base?.endId ?? 1
  for (const type of types) {
    if (type.id !== id)
      throw new BtfError('invalid_type', `invalid type id ${type.id}: expected ${id}`)
    encodeType(words, strings, type)
    id++
  }
  return assemble(words, strings.bytes(), options.byteOrder ?? 'little')
}

/** Assembles BTF from the words of its type section and its string section. The header has 24 bytes. */
export function assemble(
  words: readonly number[],
  strings: Uint8Array,
  byteOrder: ByteOrder,
): Uint8Array {
  const little = byteOrder === 'little'
  const typesSize = words.length * 4
  const bytes = new Uint8Array(BTF_HEADER_SIZE + typesSize + strings.length)
  const view = new DataView(bytes.buffer)
  view.setUint16(0, BTF_MAGIC, little)
  view.setUint8(2, BTF_VERSION)
  const header = [BTF_HEADER_SIZE, 0, typesSize, typesSize, strings.length]
  header.forEach((field, i) => {
    view.setUint32(4 + i * 4, field, little)
  })
  for (let i = 0; i < words.length; i++) {
    view.setUint32(BTF_HEADER_SIZE + i * 4, words[i]!, little)
  }
  bytes.set(strings, BTF_HEADER_SIZE + typesSize)
  return bytes
}

function encodeType(words: number[], strings: StringTable, type: BtfType): void {
  if (type.kind === 'VOID' || type.kind === 'UNKNOWN') {
    throw new BtfError('unsupported', `unsupported kind ${type.kind} of type ${type.id}`)
  }
  const header = (third: number, vlen = 0, flag = false) => {
    if (vlen > 0xffffff)
      throw new BtfError(
        'invalid_type',
        `type ${type.id} has ${vlen} elements: expected at most ${0xffffff}`,
      )
    const info = ((KIND[type.kind] << 24) | vlen | (flag ? 1 << 31 : 0)) >>> 0
    words.push(strings.offset(type.name), info, third)
  }
  switch (type.kind) {
    case 'INT': {
      header(type.size)
      const encoding = Number(type.signed) | (Number(type.char) << 1) | (Number(type.bool) << 2)
      words.push((encoding << 24) | (type.bitOffset << 16) | type.bits)
      break
    }
    case 'FLOAT':
      header(type.size)
      break
    case 'ARRAY':
      header(0)
      words.push(type.type, type.indexType, type.length)
      break
    case 'STRUCT':
    case 'UNION':
      header(type.size, type.members.length, type.flag)
      for (const member of type.members) {
        words.push(strings.offset(member.name), member.type, memberOffset(member, type.flag))
      }
      break
    case 'ENUM':
      header(type.size, type.values.length, type.signed)
      for (const { name, value } of type.values) words.push(strings.offset(name), value >>> 0)
      break
    case 'ENUM64':
      header(type.size, type.values.length, type.signed)
      for (const { name, value } of type.values) {
        const wide = BigInt.asUintN(64, value)
        words.push(strings.offset(name), Number(wide & 0xffffffffn), Number(wide >> 32n))
      }
      break
    case 'FWD':
      header(0, 0, type.of === 'union')
      break
    case 'FUNC':
      header(type.type, linkage(type.linkage))
      break
    case 'FUNC_PROTO':
      header(type.type, type.parameters.length)
      for (const { name, type: id } of type.parameters) words.push(strings.offset(name), id)
      break
    case 'VAR':
      header(type.type)
      words.push(linkage(type.linkage))
      break
    case 'DATASEC':
      header(type.size, type.variables.length)
      for (const variable of type.variables) {
        words.push(variable.type, variable.offset, variable.size)
      }
      break
    case 'DECL_TAG':
      header(type.type, 0, type.flag)
      words.push(type.component >>> 0)
      break
    case 'LOC_PARAM':
      header(type.size, type.words.length)
      words.push(type.flags)
      for (const value of type.words) words.push(value)
      break
    case 'LOC_PROTO':
      header(0, type.places.length)
      for (const place of type.places) words.push(place)
      break
    case 'LOCSEC':
      header(0, type.locations.length)
      for (const { func, proto, offset } of type.locations) words.push(func, proto, offset)
      break
    default:
      header(type.type, 0, type.flag)
  }
}

function memberOffset(member: Member, flag: boolean): number {
  if (!flag && member.bitfieldSize === 0) return member.bitOffset
  if (!flag || member.bitOffset > 0xffffff || member.bitfieldSize > 0xff) {
    throw new BtfError(
      'invalid_type',
      `offset ${member.bitOffset} or bitfield size ${member.bitfieldSize} of member ${member.name} is too large`,
    )
  }
  return ((member.bitfieldSize << 24) | member.bitOffset) >>> 0
}

function linkage(name: Linkage): number {
  return LINKAGES.indexOf(name)
}

/** The string section that is being written: one offset per text. */
class StringTable {
  readonly #start: number
  readonly #offsets = new Map<string, number>()
  readonly #pieces: Uint8Array[] = []
  #size = 0

  constructor(base: Btf | undefined, strings: Uint8Array | undefined) {
    this.#start = base?.stringsEnd ?? 0
    for (let known = base; known; known = known.base) {
      this.#learn(known.strings, known.stringsStart)
    }
    if (strings) {
      this.#learn(strings, this.#start)
      this.#add(strings)
    } else if (!base) {
      this.#add(new Uint8Array(1)) // the empty string
    }
  }

  offset(text: string): number {
    if (text === '') return 0
    const known = this.#offsets.get(text)
    if (known !== undefined) return known
    const offset = this.#start + this.#size
    this.#offsets.set(text, offset)
    this.#add(encodeText(`${text}\0`))
    return offset
  }

  bytes(): Uint8Array {
    return concatBytes(this.#pieces)
  }

  #add(bytes: Uint8Array): void {
    this.#pieces.push(bytes)
    this.#size += bytes.length
  }

  /** Records the strings of a section. Of a string that occurs twice, the first counts. */
  #learn(section: Uint8Array, start: number): void {
    for (let at = 0; at < section.length; ) {
      const end = section.indexOf(0, at)
      const text = decodeText(section.subarray(at, end))
      if (!this.#offsets.has(text)) this.#offsets.set(text, start + at)
      at = end + 1
    }
  }
}
