/*
 * Compares two BTFs. Ids differ between BTFs, so types are compared by what a program sees of them:
 *
 * - A type is identified by its sort (struct, union, enum, typedef, func, …) and name. ENUM64 is an enum too. A forward
 *   declaration is ignored if the same BTF has a definition.
 * - Referenced types are compared by name, behind a pointer or not; anonymous types are compared by their text. So the
 *   comparison always ends. A struct does not change if the target of a pointer in it changes. A struct that embeds
 *   another changes if members move or change their size.
 * - Members of anonymous structs and unions are members of the outermost struct, as in C. Members of a named member
 *   without a named type have a path, such as `se.avg`.
 * - A name can stand for several types, one per compilation unit. Types that both sides have are equal, however often
 *   they occur. Of the others, the most similar types of both sides are one changed type.
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
  textOf,
} from './type-shape.ts'

/** Pairs of types with one name whose similarity is computed. */
const MAX_PAIRS = 1024

export interface Change<T> {
  readonly old: T
  readonly new: T
}

/** The differences; properties without a change are absent. All of it can be written as JSON. */
export interface BtfDiff {
  readonly byteOrder?: Change<ByteOrder>
  /** bytes */
  readonly pointerSize?: Change<4 | 8>
  /** like `removed` and `changed` sorted by sort, then name */
  readonly added: readonly TypeName[]
  readonly removed: readonly TypeName[]
  readonly changed: readonly TypeChange[]
}

export interface TypeChange extends TypeName {
  /** bytes */
  readonly size?: Change<number>
  /** as C: the signature of a func with the names of its parameters, or the target of a typedef */
  readonly declaration?: Change<string>
  /** of a struct or union, or of an anonymous one that a typedef names; sorted by offset */
  readonly members?: ElementChanges<MemberPlace, MemberChange>
  /** of an enum, in the order of the enum */
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

/** Compares two BTFs, or only their types with one name. Errors: `cycle`, `too_large`. */
export function diffBtf(a: Btf, b: Btf, { type }: { type?: string } = {}): BtfDiff {
  const [before, after] = [new Describer(a), new Describer(b)]
  const [old, now] = [before.types(type), after.types(type)]
  const onlyOld = others(before, old, now)
  const onlyNew = others(after, now, old)
  const added: TypeName[] = []
  const removed: TypeName[] = []
  const changed: TypeChange[] = []
  for (const name of new Set([...onlyOld.keys(), ...onlyNew.keys()])) {
    for (const [was, is] of pairs(onlyOld.get(name), onlyNew.get(name))) {
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

/** The types that the other side lacks, by sort and name. */
function others(
  describer: Describer,
  types: ReadonlyMap<string, number>,
  same: ReadonlyMap<string, number>,
): Map<string, TypeShape[]> {
  const shapes = [...types].flatMap(([text, id]) =>
    same.has(text) ? [] : (describer.describe(id) ?? []),
  )
  return Map.groupBy(shapes, ({ kind, name }) => `${kind} ${name}`)
}

/** A difference between the types of one kind and name on both sides. */
export type ShapeChange =
  | { readonly change: 'added' | 'removed'; readonly shape: TypeShape }
  | { readonly change: 'changed'; readonly shape: TypeChange }

/** Compares the types of one kind and name that two BTFs have, as `diffBtf` does. */
export function diffShapes(
  before: readonly TypeShape[],
  after: readonly TypeShape[],
): ShapeChange[] {
  const [old, now] = [before, after].map((shapes) => new Set(shapes.map(textOf)))
  const pairing = pairs(
    before.filter((shape) => !now!.has(textOf(shape))),
    after.filter((shape) => !old!.has(textOf(shape))),
  )
  return [...pairing].map(([was, is]) => {
    if (!was) return { change: 'added', shape: is! }
    return is ? { change: 'changed', shape: compare(was, is) } : { change: 'removed', shape: was }
  })
}

type Pair = [old: TypeShape | undefined, now: TypeShape | undefined]

/** Pairs each type that only one side has with the type of the other side that it changed into or from. */
function* pairs(
  before: readonly TypeShape[] = [],
  after: readonly TypeShape[] = [],
): Generator<Pair> {
  const [were, are] = [inOrder(before), inOrder(after)]
  const gone = new Set(were)
  const come = new Set(are)
  for (const [old, now] of likelyPairs(were, are)) {
    if (!gone.has(old) || !come.has(now)) continue
    gone.delete(old)
    come.delete(now)
    yield [old, now]
  }
  for (const old of gone) yield [old, undefined]
  for (const now of come) yield [undefined, now]
}

/** Shapes in the order of their texts: which ones are paired does not depend on the order of types in a BTF. */
function inOrder(shapes: readonly TypeShape[]): readonly TypeShape[] {
  if (shapes.length < 2) return shapes
  const texts = new Map(shapes.map((shape) => [shape, textOf(shape)]))
  return shapes.toSorted((a, b) => (texts.get(a)! < texts.get(b)! ? -1 : 1))
}

/** Possible pairs, those with the most common elements first. The order is the same from both sides. */
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
        similarity: elementsOf(now).filter((name) => names.has(name)).length,
        place: i + j,
      }))
    })
    .sort((x, y) => y.similarity - x.similarity || x.place - y.place)
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

/** Compares elements by name, the nth of a name with the nth; undefined if nothing changed. */
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

/** A property with both values if they differ and both are defined; otherwise no property. */
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
