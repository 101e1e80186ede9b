/*
 * One type as lines, for a page: what `printLayout` prints, with the names of other types apart from the text, so that
 * each can be a link. Offsets are bits from the start of the outermost struct, sizes are bytes.
 */

import type { Btf } from './btf.ts'
import { Declarations } from './c-declaration.ts'
import { identifier, type TypeNames } from './c-name.ts'
import { isComposite } from './compatible.ts'
import { BtfError } from './error.ts'
import { KIND, kindName } from './kind.ts'
import { memberBits, resolve, sizeOf } from './layout.ts'
import type { BtfType, Enum64Type, EnumType, Member, StructType } from './type.ts'
import type { TypeName, TypeSort } from './type-shape.ts'

/** Anonymous structs within each other. */
const MAX_INLINE = 64
/** Lines of one type; the largest of Linux has some thousands. */
const MAX_LINES = 20_000

/** C text; a `TypeName` is the name of another type. */
export type LinkedText = readonly (string | TypeName)[]

export type ListingLine =
  | { readonly is: 'open' | 'text'; readonly depth: number; readonly text: LinkedText }
  | ListedMember
  | (Omit<ListedMember, 'is'> & { readonly is: 'close' })
  | {
      readonly is: 'hole' | 'padding'
      readonly depth: number
      readonly offset: number
      readonly size: number
    }
  | {
      readonly is: 'value'
      readonly depth: number
      readonly name: string
      readonly value: string
    }

/** A member, or the closing brace of one whose type is anonymous. */
export interface ListedMember {
  readonly is: 'member'
  readonly depth: number
  readonly text: LinkedText
  /** name, or path through named members of anonymous types: `se.avg`; '' for an anonymous member */
  readonly path: string
  readonly offset: number
  readonly size: number
  /** bits of a bitfield, 0 for other members */
  readonly bits: number
  /** kind of its type, without typedefs and qualifiers */
  readonly kind: string
}

export interface TypeListing extends TypeName {
  /** bytes; undefined for types without a size */
  readonly size: number | undefined
  /** members, values or parameters */
  readonly elements: number
  /** holes between the members of the outermost struct, and the bytes in them */
  readonly holes: number
  readonly holeBytes: number
  /** bytes after its last member */
  readonly padding: number
  readonly lines: readonly ListingLine[]
}

/**
 * Lists a named type: a struct or union with its members, an enum with its values, a typedef, or a function. Errors:
 * `invalid_type_id`, `cycle`, `too_large`; `unsupported` for other kinds.
 */
export function listType(btf: Btf, id: number): TypeListing {
  return new Lister(btf).list(btf.type(id))
}

class Lister {
  readonly #btf: Btf
  readonly #references: TypeName[] = []
  readonly #declarations: Declarations
  readonly #lines: ListingLine[] = []

  constructor(btf: Btf) {
    this.#btf = btf
    const refer = (kind: TypeSort, id: number): string => {
      const name = btf.name(id)
      if (name === '') return ''
      return `${START}${this.#references.push({ kind, name }) - 1}${END}`
    }
    const names: TypeNames = {
      tag: (id) => refer(SORTS[btf.kind(id)] ?? 'struct', id),
      typedef: (id) => refer('typedef', id),
      enumerator: identifier,
    }
    this.#declarations = new Declarations(btf, names)
  }

  list(type: BtfType): TypeListing {
    switch (type.kind) {
      case 'STRUCT':
      case 'UNION':
        return this.#composite(type, sortOf(type), type.name, '')
      case 'ENUM':
      case 'ENUM64':
        return this.#enum(type, 'enum', type.name, '')
      case 'TYPEDEF': {
        const target = this.#btf.type(type.type)
        if (target.name === '' && (target.kind === 'STRUCT' || target.kind === 'UNION'))
          return this.#composite(target, 'typedef', type.name, 'typedef ')
        if (target.name === '' && (target.kind === 'ENUM' || target.kind === 'ENUM64'))
          return this.#enum(target, 'typedef', type.name, 'typedef ')
        return this.#line(type, `typedef ${this.#declare(type.type, identifier(type.name))};`)
      }
      case 'FUNC':
        return this.#line(type, `${this.#declarations.prototype(type.id)};`)
      case 'FWD':
        return this.#line(type, `${type.of} ${identifier(type.name)};`)
      default:
        throw new BtfError('unsupported', `type ${type.id} is of the kind ${type.kind}`)
    }
  }

  #line(type: BtfType, text: string): TypeListing {
    this.#add({ is: 'text', depth: 0, text: this.#linked(text) })
    const prototype = type.kind === 'FUNC' ? this.#btf.type(type.type) : undefined
    return {
      kind: type.kind === 'FUNC' ? 'func' : type.kind === 'FWD' ? 'fwd' : 'typedef',
      name: type.name,
      size: type.kind === 'TYPEDEF' ? sizeOf(this.#btf, type.type) : undefined,
      elements: prototype?.kind === 'FUNC_PROTO' ? prototype.parameters.length : 0,
      ...NO_HOLES,
      lines: this.#lines,
    }
  }

  #composite(type: StructType, kind: TypeSort, name: string, prefix: string): TypeListing {
    const own = prefix === '' ? ` ${identifier(name)}` : ''
    this.#add({ is: 'open', depth: 0, text: [`${prefix}${sortOf(type)}${own} {`] })
    const { holes, holeBytes, padding } = this.#members(type, '', 0, 1)
    this.#add({ is: 'text', depth: 0, text: [prefix === '' ? '};' : `} ${identifier(name)};`] })
    return {
      ...{ kind, name, size: type.size, elements: type.members.length },
      ...{ holes, holeBytes, padding, lines: this.#lines },
    }
  }

  #enum(type: EnumType | Enum64Type, kind: TypeSort, name: string, prefix: string): TypeListing {
    const own = prefix === '' ? ` ${identifier(name)}` : ''
    this.#add({ is: 'open', depth: 0, text: [`${prefix}enum${own} {`] })
    for (const value of type.values)
      this.#add({ is: 'value', depth: 1, name: value.name, value: String(value.value) })
    this.#add({ is: 'text', depth: 0, text: [prefix === '' ? '};' : `} ${identifier(name)};`] })
    const { size, values } = type
    return { kind, name, size, elements: values.length, ...NO_HOLES, lines: this.#lines }
  }

  #members(type: StructType, path: string, base: number, depth: number) {
    if (depth > MAX_INLINE) throw new BtfError('cycle', `type ${type.id} contains itself`)
    let [end, holes, holeBytes] = [0, 0, 0]
    for (const member of type.members) {
      const { offset, size: bits } = memberBits(this.#btf, type, member)
      const hole = Math.floor(offset / 8) - Math.ceil(end / 8)
      if (type.kind === 'STRUCT' && hole > 0) {
        this.#add({ is: 'hole', depth, offset: base + Math.ceil(end / 8) * 8, size: hole })
        holes++
        holeBytes += hole
      }
      this.#member(member, path, base + offset, bits, depth)
      end = Math.max(end, offset + (bits || (sizeOf(this.#btf, member.type) ?? 0) * 8))
    }
    const padding = Math.max(type.size - Math.ceil(end / 8), 0)
    if (padding > 0 && type.members.length > 0)
      this.#add({ is: 'padding', depth, offset: base + Math.ceil(end / 8) * 8, size: padding })
    return { holes, holeBytes, padding }
  }

  #member(member: Member, within: string, offset: number, bits: number, depth: number): void {
    const btf = this.#btf
    const name = identifier(member.name)
    const size = sizeOf(btf, member.type) ?? 0
    const path = member.name === '' ? '' : within + member.name
    const kind = kindName(btf.kind(resolve(btf, member.type)))
    if (isComposite(btf.kind(member.type)) && btf.name(member.type) === '') {
      const target = btf.type(member.type) as StructType
      this.#add({ is: 'open', depth, text: [`${sortOf(target)} {`] })
      this.#members(target, path === '' ? within : `${path}.`, offset, depth + 1)
      const text = [`}${name && ` ${name}`};`]
      this.#add({ is: 'close', depth, text, path, offset, size, bits: 0, kind })
      return
    }
    const text = this.#linked(`${this.#declare(member.type, name)}${bits > 0 ? `:${bits}` : ''};`)
    this.#add({ is: 'member', depth, text, path, offset, size, bits, kind })
  }

  #declare(id: number, name: string): string {
    return this.#declarations.declare(id, name)
  }

  /** Splits text at the marks of references. Neither identifiers nor quoted tags have control characters. */
  #linked(text: string): LinkedText {
    const parts = text.replace(/\s+/g, ' ').split(MARK)
    return parts
      .map((part, i) => (i % 2 === 0 ? part : this.#references[Number(part)]!))
      .filter((part) => part !== '')
  }

  #add(line: ListingLine): void {
    if (this.#lines.push(line) > MAX_LINES)
      throw new BtfError('too_large', `the type has more than ${MAX_LINES} lines`)
  }
}

const START = '\x01'
const END = '\x02'
// biome-ignore lint/suspicious/noControlCharactersInRegex: marks that no name contains
const MARK = /\x01(\d+)\x02/

const NO_HOLES = { holes: 0, holeBytes: 0, padding: 0 }

const SORTS: Record<number, TypeSort> = {
  [KIND.STRUCT]: 'struct',
  [KIND.UNION]: 'union',
  [KIND.ENUM]: 'enum',
  [KIND.ENUM64]: 'enum',
}

const sortOf = ({ kind }: StructType) => (kind === 'STRUCT' ? 'struct' : 'union')
