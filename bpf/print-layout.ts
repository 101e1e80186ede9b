/*
 * Prints one type as pahole does: C with the offset and size of every member, in bytes from the start of the outermost
 * struct, and the holes between members.
 */

import type { Btf } from './btf.ts'
import { Declarations } from './c-declaration.ts'
import { identifier } from './c-name.ts'
import { isComposite } from './compatible.ts'
import { BtfError } from './error.ts'
import { memberBits, sizeOf } from './layout.ts'
import { TextBudget } from './text-budget.ts'
import type { LocsecType, Member, StructType } from './type.ts'

const COLUMN = 56
const TAB = 8
const MAX_INLINE = 64

/**
 * Prints a struct or union with offsets and sizes, as pahole does, and another type as its C declaration. The place of a
 * bitfield is `byte:bit size`, where byte and size are those of its storage. Of a LOCSEC it lists the inlined calls, each
 * with its offset in the section. Errors: `invalid_type_id`, `cycle`,
 * `too_large`.
 */
export function printLayout(btf: Btf, id: number): string {
  const declarations = new Declarations(btf)
  const type = btf.type(id)
  switch (type.kind) {
    case 'STRUCT':
    case 'UNION':
      return new Listing(declarations).print(type, '')
    case 'ENUM':
    case 'ENUM64':
      return `${declarations.enum(type)};\n`
    case 'TYPEDEF': {
      const target = btf.type(type.type)
      if ((target.kind === 'STRUCT' || target.kind === 'UNION') && target.name === '') {
        return new Listing(declarations).print(target, declarations.names.typedef(id), 'typedef ')
      }
      return `typedef ${declarations.declare(type.type, declarations.names.typedef(id))};\n`
    }
    case 'FUNC':
    case 'VAR':
      return `${declarations.declare(type.type, identifier(type.name))};\n`
    case 'LOCSEC':
      return inlinedCalls(btf, type)
    default:
      return `${declarations.declare(id, '')};\n`
  }
}

function inlinedCalls(btf: Btf, { name, locations }: LocsecType): string {
  const budget = new TextBudget(btf)
  const lines = locations.map(({ func, offset }) =>
    budget.take(`/* 0x${offset.toString(16).padStart(8, '0')} ${inComment(btf.name(func))} */\n`),
  )
  return `/* ${inComment(name)}, inlined calls: ${locations.length} */\n${lines.join('')}`
}

/** A name with its dots, and nothing that ends a comment. */
const inComment = (name: string): string => name.replace(/[^\w.]/g, '_')

class Listing {
  readonly #declarations: Declarations
  readonly #btf: Btf
  readonly #budget: TextBudget
  readonly #lines: string[] = []

  constructor(declarations: Declarations) {
    this.#declarations = declarations
    this.#btf = declarations.btf
    this.#budget = new TextBudget(declarations.btf)
  }

  print(type: StructType, name: string, prefix = ''): string {
    this.#line(0, `${prefix}${this.#head(type)}`)
    const holes = this.#members(type, 0, 0, 1)
    this.#line(0, '')
    this.#line(1, `/* size: ${type.size}, members: ${type.members.length}${holes} */`)
    this.#line(0, `}${name && ` ${name}`};`)
    return `${this.#lines.join('\n')}\n`
  }

  /** Prints the members; returns the part of the summary about holes and padding. */
  #members(type: StructType, base: number, depth: number, indent: number): string {
    if (depth > MAX_INLINE) throw new BtfError('cycle', `type ${type.id} contains itself`)
    let end = 0
    let holes = 0
    let sum = 0
    for (const member of type.members) {
      const { offset, size } = memberBits(this.#btf, type, member)
      const gap = offset - end
      if (type.kind === 'STRUCT' && gap >= 8 && Math.floor(offset / 8) > Math.ceil(end / 8)) {
        const bytes = Math.floor(offset / 8) - Math.ceil(end / 8)
        this.#line(0, '')
        this.#line(indent, `/* XXX ${bytes} bytes hole */`)
        this.#line(0, '')
        holes++
        sum += bytes
      }
      this.#member(member, base + offset, size, depth, indent)
      const bits = size || (sizeOf(this.#btf, member.type) ?? 0) * 8
      end = Math.max(end, offset + bits)
    }
    const padding = type.size - Math.ceil(end / 8)
    return [
      holes > 0 ? `, holes: ${holes}, sum holes: ${sum}` : '',
      padding > 0 ? `, padding: ${padding}` : '',
    ].join('')
  }

  #member(member: Member, offset: number, bits: number, depth: number, indent: number): void {
    const size = sizeOf(this.#btf, member.type) ?? 0
    const name = identifier(member.name)
    if (isComposite(this.#btf.kind(member.type)) && this.#btf.name(member.type) === '') {
      const target = this.#btf.type(member.type) as StructType
      this.#line(indent, this.#head(target))
      this.#members(target, offset, depth + 1, indent + 1)
      this.#line(indent, `}${name && ` ${name}`};`, place(offset, 0, size))
      return
    }
    const text = this.#declarations.declare(member.type, name, indent)
    this.#line(indent, bits > 0 ? `${text}:${bits};` : `${text};`, place(offset, bits, size))
  }

  #head(type: StructType): string {
    const tag = this.#declarations.names.tag(type.id)
    return `${type.kind === 'STRUCT' ? 'struct' : 'union'} ${tag && `${tag} `}{`
  }

  #line(indent: number, text: string, comment = ''): void {
    const line = '\t'.repeat(indent) + text
    const width = line.slice(line.lastIndexOf('\n') + 1).replaceAll('\t', ' '.repeat(TAB)).length
    const gap = ' '.repeat(Math.max(COLUMN - width, 0))
    this.#lines.push(this.#budget.take(comment ? `${line}${gap} ${comment}` : line))
  }
}

/** The comment with offset and size in bytes; for a bitfield those of its storage, with the first bit in it. */
function place(offset: number, bits: number, size: number): string {
  if (bits === 0) return `/* ${pad(offset / 8, 5)} ${pad(size, 5)} */`
  const unit = Math.max(size, 1) * 8
  const start = Math.floor(offset / unit) * unit
  return `/* ${pad(start / 8, 5)}:${pad(offset - start, 2)} ${pad(size, 2)} */`
}

function pad(value: number, width: number): string {
  return String(value).padStart(width)
}
