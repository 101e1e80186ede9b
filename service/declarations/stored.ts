/*
 * Declarations as the index stores them: lines of JSON in blocks, each one zstd frame. All forms of a declaration share one list of
 * members (name, type, sizes) and one of values; a form has their indexes. The place of a member is told as the distance
 * from the end of the member before it, which mostly is 0: so a form with one more member differs in one pair of numbers,
 * although all members behind it have moved.
 */
import { hash } from 'node:crypto'
import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import {
  BtfError,
  type DeclarationForm,
  type DeclarationKind,
  type MemberPlace,
  type TypeShape,
} from '../../bpf/index.ts'

/** Declarations in a block. */
export const BLOCK = 32
/** Bytes of a block, unpacked. Those of task_struct in 200 kernels are 200 KB. */
const MAX_BLOCK = 64 * 1024 * 1024
const LEVEL = 6

/** One form; absent parts are those that the kind does not have. */
export interface DeclarationRow {
  /** number among all forms of the index */
  n: number
  /** numbers of the BTFs that have it, though their parent has not; and the reverse */
  came: number[]
  went: number[]
  size?: number
  text?: string
  /** pairs: index of a member, bits from the end of the member before */
  members?: number[]
  values?: number[]
}

/** A declaration with all its forms. */
export interface StoredDeclaration {
  kind: DeclarationKind
  name: string
  /** name, type, bits of a bitfield, bytes */
  members: [string, string, number, number][]
  /** name, value */
  values: [string, string][]
  forms: DeclarationRow[]
}

export const newDeclaration = (kind: DeclarationKind, name: string): StoredDeclaration => ({
  kind,
  name,
  members: [],
  values: [],
  forms: [],
})

/** Declarations of a block by place: as JSON until they are needed. */
export type Block = (StoredDeclaration | string)[]

/** Errors: `too_large`, as `BtfError`. */
export function packBlock(block: Block): Buffer {
  const lines = block.map((one) => (typeof one === 'string' ? one : JSON.stringify(one)))
  const text = Buffer.from(lines.join('\n'))
  if (text.length > MAX_BLOCK)
    throw new BtfError('too_large', `its declarations need blocks of more than ${MAX_BLOCK} bytes`)
  return zstdCompressSync(text, { params: { [constants.ZSTD_c_compressionLevel]: LEVEL } })
}

/** Errors: those of zlib, for a damaged block. */
export const unpackBlock = (bytes: Uint8Array): Block =>
  zstdDecompressSync(bytes, { maxOutputLength: MAX_BLOCK }).toString('utf8').split('\n')

/** A declaration of a block by its place; undefined if there is none. Errors: those of JSON, for a damaged block. */
export function declarationIn(block: Block, place: number): StoredDeclaration | undefined {
  const found = block[place]
  if (typeof found !== 'string') return found
  const declaration: StoredDeclaration = JSON.parse(found)
  block[place] = declaration
  return declaration
}

/** The indexes of a declaration's members and values, by their content. */
export class ElementIndexes {
  readonly #declaration: StoredDeclaration
  readonly #members: Map<string, number>
  readonly #values: Map<string, number>
  /** names of members and values that were added */
  readonly added: string[] = []

  constructor(declaration: StoredDeclaration) {
    this.#declaration = declaration
    this.#members = new Map(declaration.members.map((member, i) => [member.join('\0'), i]))
    this.#values = new Map(declaration.values.map((value, i) => [value.join('\0'), i]))
  }

  /** The stored form of a form that came with a BTF. Its members and values are added to the declaration. */
  encode({ size, declaration, members, values }: DeclarationForm, btf: number): DeclarationRow {
    let end = 0
    return {
      ...{ n: -1, came: [btf], went: [] },
      ...(size !== undefined && { size }),
      ...(declaration !== undefined && { text: declaration }),
      ...(members && {
        members: members.flatMap((member) => {
          const pair = [this.#member(member), member.offset - end]
          end = endOf(member)
          return pair
        }),
      }),
      ...(values && { values: values.map(({ name, value }) => this.#value(name, value)) }),
    }
  }

  #member({ name, type, bitfieldSize, size }: MemberPlace): number {
    const { members } = this.#declaration
    const key = [name, type, bitfieldSize, size].join('\0')
    const known = this.#members.get(key)
    if (known !== undefined) return known
    this.#members.set(key, members.length)
    this.added.push(name)
    return members.push([name, type, bitfieldSize, size]) - 1
  }

  #value(name: string, value: string): number {
    const { values } = this.#declaration
    const key = `${name}\0${value}`
    const known = this.#values.get(key)
    if (known !== undefined) return known
    this.#values.set(key, values.length)
    this.added.push(name)
    return values.push([name, value]) - 1
  }
}

const endOf = ({ offset, bitfieldSize, size }: Omit<MemberPlace, 'name' | 'type'>): number =>
  offset + (bitfieldSize || size * 8)

/** A text that is equal for equal forms of one declaration. */
export const contentOf = ({ size, text, members, values }: DeclarationRow): string =>
  JSON.stringify([size, text, members, values])

/** The form that a stored form stands for. */
export function shapeOf(
  { kind, name, members: allMembers, values: allValues }: StoredDeclaration,
  { size, text, members, values }: DeclarationRow,
): Omit<TypeShape, 'kind'> & { kind: DeclarationKind } {
  return {
    kind,
    name,
    size,
    declaration: text,
    members: members && placesOf(allMembers, members),
    values: values?.map((index) => {
      const [name, value] = allValues[index]!
      return { name, value }
    }),
  }
}

function placesOf(all: StoredDeclaration['members'], pairs: readonly number[]): MemberPlace[] {
  const places: MemberPlace[] = []
  let end = 0
  for (let i = 0; i < pairs.length; i += 2) {
    const [name, type, bitfieldSize, size] = all[pairs[i]!]!
    const place = { name, type, offset: end + pairs[i + 1]!, bitfieldSize, size }
    end = endOf(place)
    places.push(place)
  }
  return places
}

/** The digest that identifies a form in every index: 64 bits of its text. */
export function formIdOf(declaration: StoredDeclaration, form: DeclarationRow): string {
  const { kind, name, size, declaration: text, members, values } = shapeOf(declaration, form)
  const content = JSON.stringify([kind, name, size, text, members?.map(Object.values), values])
  return hash('sha256', content).slice(0, 16)
}

/** Numbers as the differences from the one before, as varints. */
export function encodeNumbers(numbers: readonly number[] | Int32Array): Buffer {
  const bytes = Buffer.alloc(numbers.length * 5)
  let [at, last] = [0, 0]
  for (const number of numbers) {
    const step = number - last
    last = number
    let rest = ((step << 1) ^ (step >> 31)) >>> 0
    for (; rest >= 0x80; rest >>>= 7) bytes[at++] = (rest & 0x7f) | 0x80
    bytes[at++] = rest
  }
  return bytes.subarray(0, at)
}

/** Numbers as `encodeNumbers` has them, in a zstd frame. */
export const packNumbers = (numbers: readonly number[] | Int32Array): Buffer =>
  zstdCompressSync(encodeNumbers(numbers))

/** Bytes of packed numbers, at most. */
const MAX_NUMBERS = 256 * 1024 * 1024

/** Errors: those of zlib, for damaged bytes. */
export const unpackNumbers = (packed: Uint8Array): Int32Array =>
  decodeNumbers(zstdDecompressSync(packed, { maxOutputLength: MAX_NUMBERS }))

/** The numbers of `encodeNumbers`. */
export function decodeNumbers(bytes: Uint8Array): Int32Array {
  const numbers = new Int32Array(bytes.length) // most have one byte
  let count = 0
  for (let at = 0, last = 0; at < bytes.length; ) {
    let [rest, shift] = [0, 0]
    for (; bytes[at]! >= 0x80; shift += 7) rest |= (bytes[at++]! & 0x7f) << shift
    rest = (rest | (bytes[at++]! << shift)) >>> 0
    last += (rest >>> 1) ^ -(rest & 1)
    numbers[count++] = last
  }
  return numbers.subarray(0, count)
}
