/*
 * Names in C. BTF may have names that C does not allow: names of Rust types, or one name for two types. C has two name
 * spaces: tags of structs, unions and enums; and identifiers, here typedefs and enumerators. A second use of a name gets
 * the suffix `___2`, as in bpftool, which CO-RE reads as a flavour of the same type.
 */

import type { Btf } from './btf.ts'
import { KIND } from './kind.ts'
import { TextBudget } from './text-budget.ts'
import type { FloatType, IntType } from './type.ts'

const KEYWORDS = new Set(
  `auto break case char const continue default do double else enum extern float for goto if inline int long register
  restrict return short signed sizeof static struct switch typedef union unsigned void volatile while asm typeof
  _Alignas _Alignof _Atomic _Bool _Complex _Generic _Imaginary _Noreturn _Static_assert _Thread_local`.split(
    /\s+/,
  ),
)

/** A name as a C identifier; '' stays ''. */
export function identifier(name: string): string {
  if (name === '') return ''
  const plain = name.replace(/[^A-Za-z0-9_]/g, '_')
  return /^\d/.test(plain) || KEYWORDS.has(plain) ? `_${plain}` : plain
}

const INT_WORDS =
  /^(?:(?:char|short|int|long|signed|unsigned|_Bool|__int128) ?)+$|^__int128(?: unsigned)?$/

/** An integer type in C: its own name if C has that name, otherwise a type of its size and sign. */
export function intName(type: IntType): string {
  if (INT_WORDS.test(type.name)) return type.name
  if (type.bool && type.size === 1) return '_Bool'
  const names: Record<number, string> = {
    1: 'char',
    2: 'short',
    4: 'int',
    8: 'long long',
    16: '__int128',
  }
  const name = names[type.size] ?? 'int'
  return `${type.signed ? 'signed' : 'unsigned'} ${name}`
}

/** A floating-point type in C. */
export function floatName(type: FloatType): string {
  if (/^(?:float|double|long double|_Float16|__bf16)$/.test(type.name)) return type.name
  return type.size === 4 ? 'float' : type.size === 8 ? 'double' : 'long double'
}

export type Tag = 'struct' | 'union' | 'enum'

/** The printed names of the types of one BTF. */
export interface TypeNames {
  /** The tag of a struct, union, enum or forward declaration; '' for an anonymous type. */
  tag(id: number): string
  typedef(id: number): string
  /** The name of an enum's value, where the enum is written out. */
  enumerator(name: string): string
}

/** Names that are unique in a C header with all types of a BTF. Errors: `too_large`. */
export class Names implements TypeNames {
  readonly #btf: Btf
  readonly #tags = new Map<number, string>()
  readonly #typedefs = new Map<number, string>()
  /** tag → the first type that has it */
  readonly #owners = new Map<string, number>()
  /** sort and name → the first tag for them */
  readonly #firsts = new Map<string, string>()
  readonly #tagSpace: NameSpace
  readonly #identifiers: NameSpace

  /** Gives tags to definitions first, so that forward declarations can share them. */
  constructor(btf: Btf) {
    this.#btf = btf
    const budget = new TextBudget(btf)
    this.#tagSpace = new NameSpace(budget)
    this.#identifiers = new NameSpace(budget)
    for (let id = 1; id < btf.endId; id++) {
      const tag = tagOf(btf.kind(id))
      if (tag && btf.name(id) !== '' && !isForward(btf, id)) this.#own(id, tag)
    }
  }

  /** The tag of a struct, union or enum, '' for an anonymous type. A forward declaration has its definition's tag. */
  tag(id: number): string {
    const known = this.#tags.get(id)
    if (known !== undefined) return known
    return isForward(this.#btf, id) ? this.#forward(id) : ''
  }

  /** The definition in the same BTF of a forward declaration, or the declaration itself if there is none. */
  definition(id: number): number {
    return this.#owners.get(this.tag(id)) ?? id
  }

  /** A forward declaration shares the tag of a definition of its sort and name. */
  #forward(id: number): string {
    const tag = forwardTag(this.#btf, id)
    const shared = this.#firsts.get(`${tag} ${this.#btf.name(id)}`)
    if (shared === undefined) return this.#own(id, tag)
    this.#tags.set(id, shared)
    return shared
  }

  #own(id: number, tag: Tag): string {
    const name = this.#btf.name(id)
    const own = this.#tagSpace.claim(identifier(name))
    const key = `${tag} ${name}`
    if (!this.#firsts.has(key)) this.#firsts.set(key, own)
    this.#owners.set(own, id)
    this.#tags.set(id, own)
    return own
  }

  typedef(id: number): string {
    const known = this.#typedefs.get(id)
    if (known !== undefined) return known
    const name = this.enumerator(this.#btf.name(id))
    this.#typedefs.set(id, name)
    return name
  }

  /** Claims a name in the space of identifiers, where it is defined. */
  enumerator(name: string): string {
    return this.#identifiers.claim(identifier(name))
  }
}

/** A name space, which gives no name twice. */
class NameSpace {
  readonly #budget: TextBudget
  /** taken name → the suffix that the next claim of it tries first */
  readonly #taken = new Map<string, number>()

  constructor(budget: TextBudget) {
    this.#budget = budget
  }

  /** Claims a name, or if it is taken the name with the least free suffix. Errors: `too_large`. */
  claim(name: string): string {
    let claimed = name
    let number = this.#taken.get(name)
    if (number !== undefined) {
      while (this.#taken.has(`${name}___${number}`)) number++
      claimed = `${name}___${number}`
      this.#taken.set(name, number + 1)
    }
    this.#taken.set(claimed, 2)
    return this.#budget.take(claimed)
  }
}

/** True if a type only declares a tag: a FWD, or an enum without values. */
export function isForward(btf: Btf, id: number): boolean {
  const kind = btf.kind(id)
  if (btf.name(id) === '') return false
  return kind === KIND.FWD || (kind === KIND.ENUM && btf.vlen(id) === 0)
}

function forwardTag(btf: Btf, id: number): Tag {
  if (btf.kind(id) === KIND.ENUM) return 'enum'
  return btf.flag(id) ? 'union' : 'struct'
}

function tagOf(kind: number): Tag | undefined {
  if (kind === KIND.STRUCT) return 'struct'
  if (kind === KIND.UNION) return 'union'
  return kind === KIND.ENUM || kind === KIND.ENUM64 ? 'enum' : undefined
}
