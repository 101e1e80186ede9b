/*
 * The shape of a named type, as a program sees it: size, members with their offsets, values, and referenced types as C,
 * by name or written out where they are anonymous. Shapes have no ids, so types of different BTFs compare. Two types with
 * the same name and text are the same. Named types are not followed, so describing always ends.
 */

import type { Btf } from './btf.ts'
import { encodeText } from './bytes.ts'
import { Declarations } from './c-declaration.ts'
import type { TypeNames } from './c-name.ts'
import { isComposite } from './compatible.ts'
import { BtfError } from './error.ts'
import { KIND } from './kind.ts'
import { memberBits, resolve, sizeOf } from './layout.ts'
import { TextBudget } from './text-budget.ts'
import type { BtfType, FuncType, IntType, StructType } from './type.ts'

/** Anonymous structs within each other. */
const MAX_INLINE = 64
/** Sorts of types, in the order in which they are reported. ENUM64 is an enum too. */
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

/** The sort of a type by its kind, for kinds that have names of their own. */
export const SORT_OF_KIND: Readonly<Partial<Record<number, TypeSort>>> = {
  [KIND.STRUCT]: 'struct',
  [KIND.UNION]: 'union',
  [KIND.ENUM]: 'enum',
  [KIND.ENUM64]: 'enum',
  [KIND.TYPEDEF]: 'typedef',
  [KIND.FUNC]: 'func',
  [KIND.FWD]: 'fwd',
  [KIND.INT]: 'int',
  [KIND.FLOAT]: 'float',
}

/** Sorts that a forward declaration may stand for. */
const TAGGED: ReadonlySet<TypeSort> = new Set(['struct', 'union', 'enum'])

export interface TypeName {
  readonly kind: TypeSort
  readonly name: string
}

export interface MemberPlace {
  /** name, or path through members of anonymous type: `se.avg` */
  readonly name: string
  /** the type as C */
  readonly type: string
  /** bits from the start of the outermost struct */
  readonly offset: number
  /** bits of a bitfield, 0 for other members */
  readonly bitfieldSize: number
  /** bytes; 0 for types without a size */
  readonly size: number
}

export interface EnumValue {
  readonly name: string
  /** decimal digits; up to 64 bits */
  readonly value: string
}

/** The shape of a named type; see the head of the file. */
export interface TypeShape extends TypeName {
  readonly size: number | undefined
  readonly declaration: string | undefined
  readonly members: readonly MemberPlace[] | undefined
  readonly values: readonly EnumValue[] | undefined
}

interface Declarator {
  readonly before: string
  readonly after: string
  /** the declaration without a name */
  readonly text: string
}

/** Placeholder for a name; no name contains it. */
const HOLE = '\0'

/** Describes the types of one BTF. Errors of all methods: `cycle`, `too_large`. */
export class Describer {
  readonly #btf: Btf
  readonly #declarations: Declarations
  readonly #declarators = new Map<number, Declarator>()
  readonly #budget: TextBudget

  constructor(btf: Btf) {
    this.#btf = btf
    const budget = new TextBudget(btf)
    const name = (id: number) => budget.take(btf.name(id))
    const names: TypeNames = { tag: name, typedef: name, enumerator: (text) => budget.take(text) }
    this.#budget = budget
    this.#declarations = new Declarations(btf, names)
  }

  /**
   * The distinct shapes of the types, optionally of one name: the text of each shape, with the id of the first type that
   * has it. A forward declaration is left out if a definition of its name exists.
   */
  types(name?: string): Map<string, number> {
    const btf = this.#btf
    const wanted = name === undefined ? undefined : encodeText(name)
    const types = new Map<string, number>()
    const forwards = new Map<string, string>()
    const tags = new Set<string>()
    for (let id = 1; id < btf.endId; id++) {
      const named = btf.word(id, 0)
      if (named === 0 || (wanted && !btf.stringIs(named, wanted))) continue
      const shape = this.describe(id)
      if (!shape) continue
      const text = this.#budget.take(textOf(shape))
      if (!types.has(text)) types.set(text, id)
      if (shape.kind === 'fwd') forwards.set(text, shape.name)
      else if (TAGGED.has(shape.kind)) tags.add(shape.name)
    }
    for (const [text, tag] of forwards) if (tags.has(tag)) types.delete(text)
    return types
  }

  /** The shape of a type; undefined for a sort that is not compared. */
  describe(id: number): TypeShape | undefined {
    const type = this.#btf.type(id)
    switch (type.kind) {
      case 'INT':
        return shaped('int', type.name, { size: type.size, declaration: encoding(type) })
      case 'FLOAT':
        return shaped('float', type.name, { size: type.size })
      case 'FWD':
        return shaped('fwd', type.name, { declaration: `${type.of} ${type.name}` })
      case 'FUNC':
        return shaped('func', type.name, { declaration: this.#signature(type) })
      case 'STRUCT':
        return shaped('struct', type.name, this.#body(type))
      case 'UNION':
        return shaped('union', type.name, this.#body(type))
      case 'ENUM':
        if (type.values.length === 0) {
          return shaped('fwd', type.name, { declaration: `enum ${type.name}` })
        }
        return shaped('enum', type.name, this.#body(type))
      case 'ENUM64':
        return shaped('enum', type.name, this.#body(type))
      case 'TYPEDEF': {
        const body = this.#btf.name(type.type) === '' ? this.#body(this.#btf.type(type.type)) : {}
        const declaration = body.declaration ?? this.#type(type.type)
        return shaped('typedef', type.name, { ...body, declaration })
      }
      default:
        return undefined
    }
  }

  /** The content between the braces of a struct, union or enum; empty for other types. */
  #body(type: BtfType): Partial<TypeShape> {
    switch (type.kind) {
      case 'STRUCT':
      case 'UNION':
        return {
          size: type.size,
          declaration: type.kind.toLowerCase(),
          members: [...this.#members(type, '', 0, 0)],
        }
      case 'ENUM':
        // the sign is ignored: pahole before 1.24 does not write it, and libbpf reads all 32-bit values as signed
        return {
          size: type.size,
          declaration: 'enum',
          values: type.values.map(({ name, value }) => ({ name, value: String(value | 0) })),
        }
      case 'ENUM64':
        return {
          size: type.size,
          declaration: 'enum',
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
    const btf = this.#btf
    for (const member of struct.members) {
      const { offset, size } = memberBits(btf, struct, member)
      const name = this.#budget.take(path + member.name)
      const inner = member.name === '' ? resolve(btf, member.type) : member.type
      if (isComposite(btf.kind(inner)) && (member.name === '' || btf.name(inner) === '')) {
        const within = member.name === '' ? path : `${name}.`
        yield* this.#members(btf.type(inner) as StructType, within, base + offset, depth + 1)
        continue
      }
      yield {
        name,
        type: this.#type(member.type),
        offset: base + offset,
        bitfieldSize: size,
        size: sizeOf(btf, member.type) ?? 0,
      }
    }
  }

  /**
   * The prototype of a tracepoint as a function with its name: what programs get. `id` is the typedef `btf_trace_NAME` of
   * a pointer to the prototype of its probes, whose first parameter is the probe's own. Undefined for another type.
   */
  tracepoint(id: number, name: string): string | undefined {
    const pointer = this.#btf.type(this.#btf.sizeOrType(id))
    if (pointer.kind !== 'PTR' || this.#btf.kind(pointer.type) !== KIND.FUNC_PROTO) return undefined
    return this.#signature({ name, type: pointer.type }, 1)
  }

  /** A prototype as C, without its first `skipped` parameters. */
  #signature({ name, type }: Pick<FuncType, 'name' | 'type'>, skipped = 0): string {
    const prototype = this.#btf.type(type)
    if (prototype.kind !== 'FUNC_PROTO') return this.#type(type)
    const shown = prototype.parameters.slice(skipped)
    const last = shown.length - 1
    const parameters = shown.map((p, i) =>
      p.type === 0 && i === last ? '...' : this.#parameter(p),
    )
    return this.#declare(prototype.type, `${name}(${parameters.join(', ') || 'void'})`)
  }

  #parameter({ name, type }: { name: string; type: number }): string {
    return name === '' ? this.#type(type) : this.#declare(type, name)
  }

  /** A type as C, on one line. */
  #type(id: number): string {
    const { text } = this.#declarator(id)
    return this.#budget.take(text)
  }

  #declare(id: number, name: string): string {
    const { before, after } = this.#declarator(id)
    return this.#budget.take(before + name + after)
  }

  /** The C text around the name of a declaration with this type. */
  #declarator(id: number): Declarator {
    const known = this.#declarators.get(id)
    if (known) return known
    const declared = this.#declarations.declare(id, HOLE).replace(/\s+/g, ' ')
    const [before = '', after = ''] = declared.split(HOLE)
    const declarator = { before, after, text: before.trimEnd() + after }
    this.#declarators.set(id, declarator)
    return declarator
  }
}

function shaped(
  kind: TypeSort,
  name: string,
  { size, declaration, members, values }: Partial<TypeShape>,
): TypeShape {
  return { kind, name, size, declaration, members, values }
}

/** The text of a shape, independent of the order of members and values. */
export function textOf({ kind, name, size, declaration, members, values }: TypeShape): string {
  const lines = [
    ...(members ?? []).map((m) => `${m.name} ${m.type} ${m.offset} ${m.bitfieldSize} ${m.size}`),
    ...(values ?? []).map(({ name, value }) => `${name} ${value}`),
  ]
  return [`${kind} ${name} ${size} ${declaration}`, ...lines.sort()].join('\n')
}

function encoding({ size, signed, char, bool, bits, bitOffset }: IntType): string {
  const words = [signed && 'signed', char && 'char', bool && 'bool'].filter(Boolean)
  if (bits !== size * 8 || bitOffset !== 0) words.push(`${bits} bits from ${bitOffset}`)
  return words.join(' ') || 'unsigned'
}
