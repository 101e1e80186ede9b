/*
 * What changed between two BTFs. Ids mean nothing from one to the other, so types are compared by what a program sees
 * of them:
 *
 * - A type is found again by its sort (struct, union, enum, typedef, func, …) and name. An enum of 64 bits is an enum.
 *   A forward declaration beside a definition of the same BTF says nothing more and is left out.
 * - Types that it refers to are compared by name, behind a pointer or not, and anonymous ones by their text; that ends,
 *   whatever refers to what. So a struct is not changed because one it points to is, and one that holds another is
 *   where members move or change their size.
 * - Members of anonymous structs and unions are members of the outermost, as in C; those of a named member without a
 *   named type go by their path, `se.avg`.
 * - A name can stand for several types, one per compilation unit. Those that both sides have are the same, however
 *   often; of what is left those most alike are one type that changed.
 */

import type { Btf } from './btf.ts'
import type { ByteOrder } from './bytes.ts'
import {
  Describer,
  type EnumValue,
  type MemberPlace,
  TYPE_SORTS,
  type TypeName,
  type TypeShape,
} from './type-shape.ts'

/** Pairs of types of one name that are tried for how much they are alike. */
const MAX_PAIRS = 1024

export interface Change<T> {
  readonly old: T
  readonly new: T
}

/** What changed; absent is what did not. All of it can be written as JSON. */
export interface BtfDiff {
  readonly byteOrder?: Change<ByteOrder>
  /** bytes */
  readonly pointerSize?: Change<4 | 8>
  /** these three by sort, then name */
  readonly added: readonly TypeName[]
  readonly removed: readonly TypeName[]
  readonly changed: readonly TypeChange[]
}

export interface TypeChange extends TypeName {
  /** bytes */
  readonly size?: Change<number>
  /** as C: of a func its signature with the names of parameters, of a typedef what it stands for */
  readonly declaration?: Change<string>
  /** of a struct or union, or of an anonymous one that has its name from a typedef; in order of their offsets */
  readonly members?: ElementChanges<MemberPlace, MemberChange>
  /** of an enum, in its order */
  readonly values?: ElementChanges<EnumValue, ValueChange>
}

export interface ElementChanges<Element, Changed> {
  readonly added: readonly Element[]
  readonly removed: readonly Element[]
  readonly changed: readonly Changed[]
}

export interface MemberChange {
  readonly name: string
  readonly type?: Change<string>
  readonly offset?: Change<number>
  readonly bitfieldSize?: Change<number>
  readonly size?: Change<number>
}

export interface ValueChange {
  readonly name: string
  readonly value: Change<string>
}

/** Compares two BTFs, or of them the types of one name. Errors: `cycle`, `too_large`. */
export function diffBtf(a: Btf, b: Btf, { type }: { type?: string } = {}): BtfDiff {
  const [before, after] = [new Describer(a), new Describer(b)]
  const [old, now] = [before.types(type), after.types(type)]
  const gone = others(before, old, now)
  const come = others(after, now, old)
  const added: TypeName[] = []
  const removed: TypeName[] = []
  const changed: TypeChange[] = []
  for (const name of new Set([...gone.keys(), ...come.keys()])) {
    for (const [was, is] of pairs(gone.get(name), come.get(name))) {
      if (!was) added.push(nameOf(is!))
      else if (!is) removed.push(nameOf(was))
      else changed.push(compare(was, is))
    }
  }
  return {
    ...differing('byteOrder', a.byteOrder, b.byteOrder),
    ...differing('pointerSize', a.pointerSize, b.pointerSize),
    added: added.sort(byName),
    removed: removed.sort(byName),
    changed: changed.sort(byName),
  }
}

/** The types that the other side has not, by sort and name. */
function others(
  describer: Describer,
  types: ReadonlyMap<string, number>,
  same: ReadonlyMap<string, number>,
): Map<string, TypeShape[]> {
  const descriptions = [...types].flatMap(([text, id]) =>
    same.has(text) ? [] : (describer.describe(id) ?? []),
  )
  return Map.groupBy(descriptions, ({ kind, name }) => `${kind} ${name}`)
}

type Pair = [old: TypeShape | undefined, now: TypeShape | undefined]

/** The types of one name that only one side has, each with the one of the other side that it became or was. */
function* pairs(
  before: readonly TypeShape[] = [],
  after: readonly TypeShape[] = [],
): Generator<Pair> {
  const gone = new Set(before)
  const come = new Set(after)
  for (const [old, now] of likelyPairs(before, after)) {
    if (!gone.has(old) || !come.has(now)) continue
    gone.delete(old)
    come.delete(now)
    yield [old, now]
  }
  for (const old of gone) yield [old, undefined]
  for (const now of come) yield [undefined, now]
}

/** Pairs in the order in which they are taken: most elements in common first. It is the same from either side. */
function likelyPairs(
  gone: readonly TypeShape[],
  come: readonly TypeShape[],
): [TypeShape, TypeShape][] {
  if (gone.length * come.length > MAX_PAIRS) {
    return gone.slice(0, come.length).map((old, i) => [old, come[i]!])
  }
  return gone
    .flatMap((old, i) => {
      const names = new Set(elementsOf(old))
      return come.map((now, j) => ({
        pair: [old, now] as [TypeShape, TypeShape],
        alike: elementsOf(now).filter((name) => names.has(name)).length,
        place: i + j,
      }))
    })
    .sort((x, y) => y.alike - x.alike || x.place - y.place)
    .map(({ pair }) => pair)
}

function elementsOf({ members, values }: TypeShape): string[] {
  return [...(members ?? []), ...(values ?? [])].map(({ name }) => name)
}

function compare(old: TypeShape, now: TypeShape): TypeChange {
  const members = compareElements(old.members, now.members, changeOfMember)
  const values = compareElements(old.values, now.values, changeOfValue)
  return {
    ...nameOf(now),
    ...differing('size', old.size, now.size),
    ...differing('declaration', old.declaration, now.declaration),
    ...(members && { members }),
    ...(values && { values }),
  }
}

/** Compares elements by name, the first of a name with the first; undefined where nothing changed. */
function compareElements<Element extends { readonly name: string }, Changed>(
  before: readonly Element[] = [],
  after: readonly Element[] = [],
  changeOf: (old: Element, now: Element) => Changed | undefined,
): ElementChanges<Element, Changed> | undefined {
  const left = Map.groupBy(before.toReversed(), ({ name }) => name)
  const added: Element[] = []
  const changed: Changed[] = []
  for (const now of after) {
    const old = left.get(now.name)?.pop()
    if (!old) {
      added.push(now)
      continue
    }
    const change = changeOf(old, now)
    if (change) changed.push(change)
  }
  const gone = new Set([...left.values()].flat())
  const removed = before.filter((element) => gone.has(element))
  const none = added.length + removed.length + changed.length === 0
  return none ? undefined : { added, removed, changed }
}

function changeOfMember(old: MemberPlace, now: MemberPlace): MemberChange | undefined {
  const change = {
    ...differing('type', old.type, now.type),
    ...differing('offset', old.offset, now.offset),
    ...differing('bitfieldSize', old.bitfieldSize, now.bitfieldSize),
    ...differing('size', old.size, now.size),
  }
  return Object.keys(change).length === 0 ? undefined : { name: now.name, ...change }
}

function changeOfValue(old: EnumValue, now: EnumValue): ValueChange | undefined {
  return old.value === now.value
    ? undefined
    : { name: now.name, value: { old: old.value, new: now.value } }
}

function nameOf({ kind, name }: TypeName): TypeName {
  return { kind, name }
}

/** One property with both values, where they differ and both sides have one. */
function differing<Key extends string, T>(
  key: Key,
  old: T | undefined,
  now: T | undefined,
): { readonly [K in Key]?: Change<T> } {
  if (old === undefined || now === undefined || old === now) return {}
  return { [key]: { old, new: now } } as { [K in Key]: Change<T> }
}

/** By sort, then name, in the order of code units. */
export function byName(a: TypeName, b: TypeName): number {
  const sorts = TYPE_SORTS.indexOf(a.kind) - TYPE_SORTS.indexOf(b.kind)
  return sorts || (a.name < b.name ? -1 : a.name > b.name ? 1 : 0)
}
