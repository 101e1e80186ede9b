/*
 * Names in C: BTF may hold what C cannot say (names of Rust types, two types of one name), and C has two name spaces:
 * tags of struct, union and enum; and identifiers, typedefs and enumerators. A second use of a name gets `___2`, as
 * bpftool does, which CO-RE takes for a flavour of the same type.
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

/** An integer type in C: its own name where that is C's, else by size and sign. */
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

/** What the types of one BTF are called where they are printed. */
export interface TypeNames {
  /** of a struct, union, enum or forward declaration; '' of an anonymous one */
  tag(id: number): string
  typedef(id: number): string
  /** of an enum's value, where the enum is written out */
  enumerator(name: string): string
}

/** Names that make one C header of all types of a BTF. Errors: `too_large`. */
export class Names implements TypeNames {
  readonly #btf: Btf
  readonly #tags = new Map<number, string>()
  readonly #typedefs = new Map<number, string>()
  /** the first type that has a tag */
  readonly #owners = new Map<string, number>()
  /** the first tag of those of one sort and name */
  readonly #firsts = new Map<string, string>()
  readonly #tagSpace: NameSpace
  readonly #identifiers: NameSpace

  /** Definitions take their tags first, so that forward declarations can be fitted to them. */
  constructor(btf: Btf) {
    this.#btf = btf
    const room = new TextBudget(btf)
    this.#tagSpace = new NameSpace(room)
    this.#identifiers = new NameSpace(room)
    for (let id = 1; id < btf.endId; id++) {
      const tag = tagOf(btf.kind(id))
      if (tag && btf.name(id) !== '' && !isForward(btf, id)) this.#own(id, tag)
    }
  }

  /** The tag of a struct, union or enum, '' for an anonymous one; of a forward, that of its definition. */
  tag(id: number): string {
    const known = this.#tags.get(id)
    if (known !== undefined) return known
    return isForward(this.#btf, id) ? this.#forward(id) : ''
  }

  /** The definition of the same BTF that a forward declaration stands for, else the forward itself. */
  definition(id: number): number {
    return this.#owners.get(this.tag(id)) ?? id
  }

  /** A forward shares the tag of a definition of its sort and name. */
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

  /** A name in the space of identifiers, at its definition. */
  enumerator(name: string): string {
    return this.#identifiers.claim(identifier(name))
  }
}

/** Names of which none is given twice. */
class NameSpace {
  readonly #room: TextBudget
  /** for each that is taken the number that the next who wants it tries first */
  readonly #taken = new Map<string, number>()

  constructor(room: TextBudget) {
    this.#room = room
  }

  /** The name, or where it is taken with the least number that is free. Errors: `too_large`. */
  claim(name: string): string {
    let claimed = name
    let number = this.#taken.get(name)
    if (number !== undefined) {
      while (this.#taken.has(`${name}___${number}`)) number++
      claimed = `${name}___${number}`
      this.#taken.set(name, number + 1)
    }
    this.#taken.set(claimed, 2)
    return this.#room.take(claimed)
  }
}

/** Whether a type only declares a tag: FWD, and an enum without values, which is how enums are declared. */
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
