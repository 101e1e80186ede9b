/* What changed between two forms of a declaration, in the words of people: names, not offsets. */
import type { MemberPlace } from '../../bpf/index.ts'
import type { DeclaredForm, FormChanges } from './answers.ts'

/** Names that a list of changes has. */
const MAX_LISTED = 50

type Form = Pick<DeclaredForm, 'size' | 'declaration' | 'members' | 'values'>

/** Compares two forms. */
export function changesOf(old: Form, now: Form): FormChanges {
  const members = compareMembers(old.members ?? [], now.members ?? [])
  const values = compareValues(old.values ?? [], now.values ?? [])
  const lists = {
    added: [...members.added, ...values.added],
    removed: [...members.removed, ...values.removed],
    renamed: members.renamed,
    retyped: [...members.retyped, ...values.retyped],
  }
  const omitted = Object.values(lists).reduce(
    (sum, list) => sum + Math.max(list.length - MAX_LISTED, 0),
    0,
  )
  return {
    ...(old.size !== undefined && now.size !== undefined && old.size !== now.size
      ? { size: { old: old.size, new: now.size } }
      : {}),
    ...(old.declaration !== undefined &&
    now.declaration !== undefined &&
    old.declaration !== now.declaration
      ? { declaration: { old: old.declaration, new: now.declaration } }
      : {}),
    added: lists.added.slice(0, MAX_LISTED),
    removed: lists.removed.slice(0, MAX_LISTED),
    renamed: lists.renamed.slice(0, MAX_LISTED),
    retyped: lists.retyped.slice(0, MAX_LISTED),
    moved: members.moved,
    omitted,
  }
}

function compareMembers(old: readonly MemberPlace[], now: readonly MemberPlace[]) {
  const before = byName(old)
  const after = byName(now)
  const removed: string[] = []
  const renamed: { from: string; to: string }[] = []
  const taken = new Set<string>()
  for (const { name } of before.values()) {
    if (after.has(name)) continue
    const to = renamedTo(name, old, now)
    if (to === undefined || taken.has(to)) removed.push(name)
    else {
      taken.add(to)
      renamed.push({ from: name, to })
    }
  }
  const added = [...after.keys()].filter((name) => !before.has(name) && !taken.has(name))
  const retyped: FormChanges['retyped'] = []
  let moved = 0
  for (const [name, is] of after) {
    const was = before.get(name)
    if (!was) continue
    if (isRetyped(was, is) || was.size !== is.size)
      retyped.push({ name, old: typeText(was), new: typeText(is) })
    else if (was.offset !== is.offset) moved++
  }
  return { added, removed, renamed, retyped, moved }
}

/** The first member of each name. */
function byName(members: readonly MemberPlace[]): Map<string, MemberPlace> {
  const named = new Map<string, MemberPlace>()
  for (const member of members)
    if (member.name !== '' && !named.has(member.name)) named.set(member.name, member)
  return named
}

type MemberType = Partial<Pick<MemberPlace, 'type' | 'bitfieldSize'>>

/** Tells whether a member has another type, or another width as a bitfield. */
export const isRetyped = (a: MemberType, b: MemberType): boolean =>
  a.type !== b.type || a.bitfieldSize !== b.bitfieldSize

function typeText({ type, bitfieldSize, size }: MemberPlace): string {
  return bitfieldSize > 0 ? `${type} : ${bitfieldSize}` : `${type} (${size} bytes)`
}

/**
 * The member that took the place of one that went: it is new, is at the same offset or behind the same member, and has
 * the same type, or a name that contains the old one or is contained in it. So `state` became `__state`.
 */
export function renamedTo(
  name: string,
  old: readonly MemberPlace[],
  now: readonly MemberPlace[],
): string | undefined {
  const at = old.findIndex((member) => member.name === name)
  const was = old[at]
  if (!was) return undefined
  const known = new Set(old.map((member) => member.name))
  const previous = old[at - 1]?.name
  const isIt = (member: MemberPlace, i: number) => {
    if (member.name === '' || known.has(member.name)) return false
    const isInPlace = member.offset === was.offset || (at > 0 && now[i - 1]?.name === previous)
    return isInPlace && (!isRetyped(member, was) || areSimilar(member.name, name))
  }
  return now.find(isIt)?.name
}

/** Tells whether one name contains the other, if underscores do not count. */
function areSimilar(a: string, b: string): boolean {
  const [x, y] = [a, b].map((name) => name.replaceAll('_', ''))
  return x !== '' && y !== '' && (x!.includes(y!) || y!.includes(x!))
}

function compareValues(
  old: readonly { name: string; value: string }[],
  now: readonly { name: string; value: string }[],
) {
  const before = new Map(old.map(({ name, value }) => [name, value]))
  const after = new Map(now.map(({ name, value }) => [name, value]))
  return {
    added: [...after.keys()].filter((name) => !before.has(name)),
    removed: [...before.keys()].filter((name) => !after.has(name)),
    retyped: [...after].flatMap(([name, value]) => {
      const was = before.get(name)
      return was === undefined || was === value ? [] : [{ name, old: was, new: value }]
    }),
  }
}
