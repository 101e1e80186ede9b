/*
 * What a program sees of a named type, without ids, so that types of different BTFs compare: size, members with their
 * offsets, values; and what it refers to as C, by name, or written out where it has none. Two types of one name and
 * one text are the same. Nothing is followed through a name, so describing ends, whatever refers to what.
 */

import type { Btf } from './btf.ts'
import { Declarations } from './c-declaration.ts'
import type { TypeNames } from './c-name.ts'
import { BtfError } from './error.ts'
import { memberBits, resolve, sizeOf } from './layout.ts'
import type { BtfType, FuncType, IntType, StructType } from './type.ts'

/** Anonymous structs within each other. */
const MAX_INLINE = 64
/**
 * Characters that describe the types of a BTF, so many for each of its bytes and a start: names can be tails of one
 * long string, and anonymous structs name each other twice. Real kernels have 2.
 */
const MAX_TEXT = 1 << 20
const MAX_TEXT_PER_BYTE = 32
/** Sorts of types, in the order in which they are reported; an enum of 64 bits is an enum. */
export const TYPE_SORTS = [
  'struct',
  'union',
  'enum',
  'typedef',
  'func',
  'fwd',
  'int',
  'float',
] as const
export type TypeSort = (typeof TYPE_SORTS)[number]

export interface TypeName {
  readonly kind: TypeSort
  readonly name: string
}

export interface MemberPlace {
  /** its path through members whose type has no name */
  readonly name: string
  /** as C */
  readonly type: string
  /** bits from the start of the outermost struct */
  readonly offset: number
  /** bits, 0 for what is no bitfield */
  readonly bitfieldSize: number
  /** bytes; 0 for what has no size */
  readonly size: number
}

export interface EnumValue {
  readonly name: string
  /** decimal; up to 64 bits */
  readonly value: string
}

/** A named type without ids: two that have one text are the same. */
export interface Description extends TypeName {
  readonly text: string
  readonly size: number | undefined
  readonly declaration: string | undefined
  readonly members: readonly MemberPlace[] | undefined
  readonly values: readonly EnumValue[] | undefined
}

/**
 * The different types of each name, or of one name alone, by sort and name, then by their text. Errors: `cycle`, `too_large`.
 */
export function describeTypes(
  btf: Btf,
  name: string | undefined,
): Map<string, Map<string, Description>> {
  const described = new Map<string, Map<string, Description>>()
  const describer = new Describer(btf)
  const wanted = name === undefined ? undefined : Buffer.from(name)
  for (let id = 1; id < btf.endId; id++) {
    const named = btf.word(id, 0)
    if (named === 0 || (wanted && !btf.stringIs(named, wanted))) continue
    const description = describer.describe(btf.type(id))
    if (!description) continue
    const key = `${description.kind} ${description.name}`
    const known = described.get(key)
    if (known) known.set(description.text, description)
    else described.set(key, new Map([[description.text, description]]))
  }
  for (const key of described.keys()) {
    const [, tag] = /^fwd (.*)$/s.exec(key) ?? []
    const definitions = [`struct ${tag}`, `union ${tag}`, `enum ${tag}`]
    if (tag && definitions.some((definition) => described.has(definition))) described.delete(key)
  }
  return described
}

class Describer {
  readonly #btf: Btf
  readonly #declarations: Declarations
  readonly #types = new Map<number, string>()
  #room: number

  constructor(btf: Btf) {
    this.#btf = btf
    const name = (id: number) => this.#take(btf.name(id))
    const names: TypeNames = { tag: name, typedef: name, enumerator: (text) => this.#take(text) }
    this.#declarations = new Declarations(btf, names)
    this.#room = MAX_TEXT
    for (let home: Btf | undefined = btf; home; home = home.base) {
      this.#room += MAX_TEXT_PER_BYTE * home.bytes.length
    }
  }

  /** Describes a named type; undefined for one of a sort that is not compared. */
  describe(type: BtfType): Description | undefined {
    switch (type.kind) {
      case 'INT':
        return this.#described('int', type.name, { size: type.size, declaration: encoding(type) })
      case 'FLOAT':
        return this.#described('float', type.name, { size: type.size })
      case 'FWD':
        return this.#described('fwd', type.name, { declaration: `${type.of} ${type.name}` })
      case 'FUNC':
        return this.#described('func', type.name, { declaration: this.#signature(type) })
      case 'STRUCT':
        return this.#described('struct', type.name, this.#body(type))
      case 'UNION':
        return this.#described('union', type.name, this.#body(type))
      case 'ENUM':
        if (type.values.length === 0) {
          return this.#described('fwd', type.name, { declaration: `enum ${type.name}` })
        }
        return this.#described('enum', type.name, this.#body(type))
      case 'ENUM64':
        return this.#described('enum', type.name, this.#body(type))
      case 'TYPEDEF': {
        const target = this.#btf.type(type.type)
        const body = target.name === '' ? this.#body(target) : {}
        const declaration = 'size' in body ? target.kind.toLowerCase() : this.#type(type.type)
        return this.#described('typedef', type.name, { declaration, ...body })
      }
      default:
        return undefined
    }
  }

  #described(
    kind: TypeSort,
    name: string,
    { size, declaration, members, values }: Partial<Description>,
  ): Description {
    const lines = [
      `${size} ${declaration}`,
      ...(members ?? []).map((m) => [m.name, m.type, m.offset, m.bitfieldSize, m.size].join('\t')),
      ...(values ?? []).map(({ name, value }) => `${name}\t${value}`),
    ]
    const text = this.#take(lines.join('\n'))
    return { kind, name, text, size, declaration, members, values }
  }

  /** What is between the braces of a struct, union or enum; of another type nothing. */
  #body(type: BtfType): Partial<Description> {
    switch (type.kind) {
      case 'STRUCT':
      case 'UNION':
        return { size: type.size, members: [...this.#members(type, '', 0, 0)] }
      case 'ENUM':
        // without regard to the sign, which pahole before 1.24 does not write; libbpf takes all of 32 bits as signed
        return {
          size: type.size,
          values: type.values.map(({ name, value }) => ({ name, value: String(value | 0) })),
        }
      case 'ENUM64':
        return {
          size: type.size,
          values: type.values.map(({ name, value }) => ({ name, value: String(value) })),
        }
      default:
        return {}
    }
  }

  *#members(
    struct: StructType,
    path: string,
    base: number,
    depth: number,
  ): Generator<MemberPlace, void, undefined> {
    if (depth > MAX_INLINE) throw new BtfError('cycle', `type ${struct.id} contains itself`)
    for (const member of struct.members) {
      const { offset, size } = memberBits(this.#btf, struct, member)
      const name = this.#take(path + member.name)
      const inner = this.#btf.type(
        member.name === '' ? resolve(this.#btf, member.type) : member.type,
      )
      const anonymous = member.name === '' || inner.name === ''
      if ((inner.kind === 'STRUCT' || inner.kind === 'UNION') && anonymous) {
        const within = member.name === '' ? path : `${name}.`
        yield* this.#members(inner, within, base + offset, depth + 1)
        continue
      }
      yield {
        name,
        type: this.#type(member.type),
        offset: base + offset,
        bitfieldSize: size,
        size: sizeOf(this.#btf, member.type) ?? 0,
      }
    }
  }

  #signature({ name, type }: FuncType): string {
    const prototype = this.#btf.type(type)
    if (prototype.kind !== 'FUNC_PROTO') return this.#type(type)
    const last = prototype.parameters.length - 1
    const parameters = prototype.parameters.map((p, i) =>
      p.type === 0 && i === last ? '...' : this.#declare(p.type, p.name),
    )
    return this.#declare(prototype.type, `${name}(${parameters.join(', ') || 'void'})`)
  }

  /** A type as C, in one line. */
  #type(id: number): string {
    const text = this.#types.get(id) ?? this.#declare(id, '')
    this.#types.set(id, text)
    return this.#take(text)
  }

  #declare(id: number, name: string): string {
    return this.#declarations.declare(id, name).replace(/\s+/g, ' ')
  }

  /** Counts text against what there is room for. */
  #take(text: string): string {
    this.#room -= text.length + 1
    if (this.#room < 0) {
      throw new BtfError('too_large', 'the types take more text to describe than BTF is meant for')
    }
    return text
  }
}

function encoding({ size, signed, char, bool, bits, bitOffset }: IntType): string {
  const words = [signed && 'signed', char && 'char', bool && 'bool'].filter(Boolean)
  if (bits !== size * 8 || bitOffset !== 0) words.push(`${bits} bits from ${bitOffset}`)
  return words.join(' ') || 'unsigned'
}
