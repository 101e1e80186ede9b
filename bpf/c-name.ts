/*
 * Names in C: BTF may hold what C cannot say (names of Rust types, two types of one name), and C has two name spaces:
 * tags of struct, union and enum; and identifiers, typedefs and enumerators. A second use of a name gets `___2`, as
 * bpftool does, which CO-RE takes for a flavour of the same type.
 */

import type { Btf } from './btf.ts'
import { KIND } from './kind.ts'
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

/** Names that make one C header of all types of a BTF. */
export class Names implements TypeNames {
  readonly #btf: Btf
  readonly #tags = new Map<number, string>()
  readonly #owners = new Map<string, { readonly tag: Tag; readonly id: number }>()
  readonly #identifiers = new Set<string>()
  readonly #typedefs = new Map<number, string>()

  /** Definitions take their tags first, so that forward declarations can be fitted to them. */
  constructor(btf: Btf) {
    this.#btf = btf
    for (let id = 1; id < btf.endId; id++) {
      const tag = tagOf(btf.kind(id))
      if (!tag || isForward(btf, id)) continue
      const name = identifier(btf.name(id))
      if (name === '') continue
      this.#own(
        free(name, (candidate) => this.#owners.has(candidate)),
        tag,
        id,
      )
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
    return this.#owners.get(this.tag(id))?.id ?? id
  }

  /** A forward shares the tag of a definition, unless that is of another sort. */
  #forward(id: number): string {
    const tag = forwardTag(this.#btf, id)
    const name = free(identifier(this.#btf.name(id)), (candidate) => {
      const owner = this.#owners.get(candidate)
      return owner !== undefined && owner.tag !== tag
    })
    if (this.#owners.has(name)) this.#tags.set(id, name)
    else this.#own(name, tag, id)
    return name
  }

  #own(name: string, tag: Tag, id: number): void {
    this.#owners.set(name, { tag, id })
    this.#tags.set(id, name)
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
    const unique = free(identifier(name), (candidate) => this.#identifiers.has(candidate))
    this.#identifiers.add(unique)
    return unique
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

function free(name: string, taken: (candidate: string) => boolean): string {
  let candidate = name
  for (let n = 2; taken(candidate); n++) candidate = `${name}___${n}`
  return candidate
}
