/*
 * C declarations and definitions of types. A declaration is built from the inside out: pointers, arrays and parameters go
 * around the name, on the path to the base type.
 *
 * A struct is printed so that every member has the offset in the BTF, whatever the compiler's ABI. Unnamed bitfields fill
 * gaps wherever natural alignment does not certainly create them; misaligned structs are packed.
 */

import { Alignments } from './alignment.ts'
import type { Btf } from './btf.ts'
import { floatName, identifier, intName, Names, type TypeNames } from './c-name.ts'
import { isComposite } from './compatible.ts'
import { BtfError } from './error.ts'
import { KIND } from './kind.ts'
import { memberBits, resolve, sizeOf } from './layout.ts'
import { TextBudget } from './text-budget.ts'
import type {
  Enum64Type,
  EnumType,
  FloatType,
  FuncProtoType,
  IntType,
  Member,
  StructType,
} from './type.ts'

/** Nesting of anonymous structs, and of functions that take functions. */
const MAX_INLINE = 64
/** Steps from a type to its base type. */
const MAX_CHAIN = 256

/** Prints the types of one BTF as C. Errors of all methods: `cycle`, `too_large`. */
export class Declarations {
  readonly btf: Btf
  readonly names: TypeNames
  readonly #alignments: Alignments
  readonly #budget: TextBudget

  constructor(btf: Btf, names: TypeNames = new Names(btf)) {
    this.btf = btf
    this.names = names
    this.#alignments = new Alignments(btf)
    this.#budget = new TextBudget(btf)
  }

  /** `type name`, as in a member or typedef; the type alone if the name is ''. Anonymous types are written out. */
  declare(id: number, name: string, depth = 0): string {
    if (depth > MAX_INLINE) throw new BtfError('cycle', `type ${id} contains itself`)
    const { btf } = this
    let inner = name
    let qualifiers: string[] = []
    let tags: string[] = []
    let current = id
    for (let step = 0; step < MAX_CHAIN; step++) {
      switch (btf.kind(current)) {
        case KIND.CONST:
          qualifiers.push('const')
          break
        case KIND.VOLATILE:
          qualifiers.push('volatile')
          break
        case KIND.RESTRICT:
          if (btf.kind(resolve(btf, current)) === KIND.PTR) qualifiers.push('restrict')
          break
        case KIND.TYPE_TAG:
          tags.push(this.#attribute(current))
          break
        case KIND.PTR:
          inner =
            qualifiers.length + tags.length > 0
              ? words(['*', ...qualifiers, ...tags, inner])
              : `*${inner}`
          qualifiers = []
          tags = []
          break
        case KIND.ARRAY:
          inner = `${inner.startsWith('*') ? `(${inner})` : inner}[${btf.word(current, 20)}]`
          qualifiers = []
          current = btf.word(current, 12)
          continue
        case KIND.FUNC_PROTO: {
          const type = btf.type(current) as FuncProtoType
          inner = `${inner.startsWith('*') ? `(${inner})` : inner}(${this.#parameters(type, depth)})`
          qualifiers = []
          break
        }
        default:
          return this.#budget.take(
            words([...qualifiers, this.#base(current, depth), ...tags, inner]),
          )
      }
      current = btf.sizeOrType(current)
    }
    throw new BtfError('cycle', `type ${id} is a chain of more than ${MAX_CHAIN} references`)
  }

  /** The prototype of a FUNC, with the names of its parameters, without a closing semicolon. */
  prototype(id: number): string {
    const type = this.btf.type(this.btf.sizeOrType(id)) as FuncProtoType
    const parameters = this.#parameters(type, 0, ({ name }) => identifier(name))
    return this.declare(type.type, `${identifier(this.btf.name(id))}(${parameters})`)
  }

  /** The definition of a struct or union without a closing semicolon. */
  struct(type: StructType, depth = 0, tag = this.names.tag(type.id)): string {
    if (depth > MAX_INLINE) throw new BtfError('cycle', `type ${type.id} contains itself`)
    const head = this.#budget.take(words([type.kind === 'STRUCT' ? 'struct' : 'union', tag]))
    const packed = this.#alignments.isPacked(type)
    const lines = this.#body(type, packed, depth + 1)
    const indent = '\t'.repeat(depth)
    const body = lines.map((line) => `${indent}\t${line};\n`).join('')
    const attribute = packed ? ' __attribute__((packed))' : ''
    return `${head} {${body && `\n${body}${indent}`}}${attribute}`
  }

  /** The definition of an enum without a closing semicolon. */
  enum(type: EnumType | Enum64Type, depth = 0): string {
    const head = ['enum', this.names.tag(type.id)].filter(Boolean).join(' ')
    const indent = '\t'.repeat(depth)
    const suffix = type.kind === 'ENUM' ? '' : type.signed ? 'LL' : 'ULL'
    const lines = type.values.map(({ name, value }) => {
      const line = `${indent}\t${this.names.enumerator(name)} = ${literal(value, suffix)},\n`
      return this.#budget.take(line)
    })
    return `${head} {\n${lines.join('')}${indent}}${enumMode(type)}`
  }

  #parameters(
    type: FuncProtoType,
    depth: number,
    nameOf = (_: FuncProtoType['parameters'][number]) => '',
  ): string {
    const { parameters } = type
    if (parameters.every((p) => p.type === 0) && parameters.length <= 1) return 'void'
    return parameters
      .map((p, i) =>
        p.type === 0 && i === parameters.length - 1
          ? '...'
          : this.declare(p.type, nameOf(p), depth + 1),
      )
      .join(', ')
  }

  #attribute(id: number): string {
    const name = this.btf.name(id)
    if (this.btf.flag(id))
      return `__attribute__((${ATTRIBUTE.test(name) ? name : identifier(name)}))`
    return `__attribute__((btf_type_tag(${JSON.stringify(name)})))`
  }

  #base(id: number, depth: number): string {
    const { btf, names } = this
    switch (btf.kind(id)) {
      case KIND.INT:
        return intName(btf.type(id) as IntType)
      case KIND.FLOAT:
        return floatName(btf.type(id) as FloatType)
      case KIND.TYPEDEF:
        return names.typedef(id)
      case KIND.FWD:
        return `${btf.flag(id) ? 'union' : 'struct'} ${names.tag(id)}`
      case KIND.STRUCT:
      case KIND.UNION:
        if (btf.name(id) === '') return this.struct(btf.type(id) as StructType, depth)
        return `${btf.kind(id) === KIND.STRUCT ? 'struct' : 'union'} ${names.tag(id)}`
      case KIND.ENUM:
      case KIND.ENUM64:
        if (btf.name(id) !== '') return `enum ${names.tag(id)}`
        return btf.vlen(id) > 0 ? this.enum(btf.type(id) as EnumType | Enum64Type, depth) : 'int'
      default:
        return 'void'
    }
  }

  /** The members of a struct and the padding between them; an array of bytes if there is none or C cannot express them. */
  #body(type: StructType, packed: boolean, depth: number): string[] {
    this.#budget.spend(type.members.length)
    if (type.members.length === 0 && type.size > 0) return [bytesOf(type)]
    const lines: string[] = []
    const alignment = packed ? 1 : this.#alignments.natural(type).bytes
    const certain = packed || this.#alignments.natural(type).certain
    let end = 0
    for (const member of type.members) {
      const { offset, size } = memberBits(this.btf, type, member)
      const line = this.#member(member, size, depth)
      if (line === undefined) continue
      if (type.kind === 'UNION' ? offset !== 0 : offset < end) return opaque(type)
      const own = packed ? { bytes: 1, certain: true } : this.#alignments.of(member.type)
      const falls = size === 0 && own.certain && roundUp(end, own.bytes * 8) === offset
      if (type.kind === 'STRUCT' && !falls) {
        for (const pad of this.#padding(end, offset, packed, alignment)) lines.push(pad)
      }
      lines.push(line)
      const bits = size || (sizeOf(this.btf, member.type) ?? 0) * 8
      end = type.kind === 'UNION' ? Math.max(end, bits) : offset + bits
    }
    const falls = certain && roundUp(end, alignment * 8) === type.size * 8
    if (end > type.size * 8) return opaque(type)
    if (falls || end === type.size * 8) return lines
    const pads = this.#padding(type.kind === 'STRUCT' ? end : 0, type.size * 8, packed, alignment)
    if (type.kind === 'UNION') return [...lines, `struct { ${[...pads].join('; ')}; }`]
    for (const pad of pads) lines.push(pad)
    return lines
  }

  /** The line of a member; undefined for one that C cannot name, which becomes padding. */
  #member(member: Member, bits: number, depth: number): string | undefined {
    if (member.name === '') {
      // with -fms-extensions a named struct may be an unnamed member: its members are repeated then
      const id = resolve(this.btf, member.type)
      if (!isComposite(this.btf.kind(id)) || bits > 0) return undefined
      return this.struct(this.btf.type(id) as StructType, depth, '')
    }
    const line = this.declare(member.type, identifier(member.name), depth)
    return bits > 0 ? `${line}: ${bits}` : line
  }

  /**
   * Unnamed bitfields from bit `from` to bit `to`. None crosses a boundary of its own type. None has a stricter alignment
   * than the struct, because some ABIs (AAPCS) would align the struct to it.
   */
  *#padding(from: number, to: number, packed: boolean, alignment: number): Generator<string> {
    const widest = packed ? 64 : Math.min(alignment * 8, 64)
    for (let at = from; at < to; ) {
      const unit = UNITS.find((u) => u.bits <= widest && at % u.bits === 0 && at + u.bits <= to)
      const bits = unit?.bits ?? Math.min(to, roundUp(at + 1, 8)) - at
      yield this.#budget.take(`${unit?.name ?? 'char'}: ${bits}`)
      at += bits
    }
  }
}

/** An attribute with names or numbers as arguments: `address_space(1)`. */
const ATTRIBUTE = /^[A-Za-z_]\w*\(\w+(?:, ?\w+)*\)$/

const UNITS = [
  { name: 'long long', bits: 64 },
  { name: 'int', bits: 32 },
  { name: 'short', bits: 16 },
  { name: 'char', bits: 8 },
] as const

/** A member that fills a struct. In an anonymous struct its name must differ from those of the struct around it. */
function bytesOf({ id, name, size }: StructType): string {
  return `unsigned char __opaque${name === '' ? `_${id}` : ''}[${size}]`
}

function opaque(type: StructType): string[] {
  return [`${bytesOf(type)} /* members overlap */`]
}

function words(list: readonly string[]): string {
  return list.filter(Boolean).join(' ')
}

function roundUp(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit
}

function literal(value: number | bigint, suffix: string): string {
  // C has no negative literals, so the minimum is written as the negated maximum minus one
  if (value === -2147483648) return '-2147483647 - 1'
  if (value === -(1n << 63n)) return '-9223372036854775807LL - 1'
  const unsigned = suffix === '' && value > 0x7fffffff ? 'U' : suffix
  return `${value}${unsigned}`
}

/** The attribute that gives an enum a size other than its natural one. */
function enumMode(type: EnumType | Enum64Type): string {
  const modes: Record<number, string> = { 1: 'byte', 2: 'HI', 8: 'DI' }
  const mode = modes[type.size]
  const natural =
    type.kind === 'ENUM64' &&
    type.values.some(({ value }) => value > 0xffffffffn || value < -0x80000000n)
  return mode && !natural ? ` __attribute__((mode(${mode})))` : ''
}
