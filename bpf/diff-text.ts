/* Prints a diff: a line per type, and indented lines for its members and values. `+` is added, `-` removed, `~` changed. */

import { type BtfDiff, byName, type Change, type MemberChange, type TypeChange } from './diff.ts'
import type { EnumValue, MemberPlace } from './type-shape.ts'

/**
 * The lines of the diff, each with its newline; the last one has the counts. Offsets and sizes are bytes; the offset of a
 * bitfield is `byte:bit`. Control characters in names are shown as `?`.
 */
export function* printDiff(diff: BtfDiff): Generator<string> {
  for (const line of linesOf(diff)) yield `${line.replace(/\p{Cc}/gu, '?')}\n`
}

function* linesOf(diff: BtfDiff): Generator<string> {
  const { byteOrder, pointerSize, added, removed, changed } = diff
  if (byteOrder) yield `byte order: ${arrow(byteOrder)}`
  if (pointerSize) yield `pointers: ${arrow(pointerSize)} bytes`
  const entries = [
    ...removed.map((type) => ({ ...type, lines: () => [`- ${type.kind} ${type.name}`] })),
    ...added.map((type) => ({ ...type, lines: () => [`+ ${type.kind} ${type.name}`] })),
    ...changed.map((type) => ({ ...type, lines: () => linesOfType(type) })),
  ]
  for (const { lines } of entries.sort(byName)) yield* lines()
  yield `${removed.length} removed, ${added.length} added, ${changed.length} changed`
}

function* linesOfType(type: TypeChange): Generator<string> {
  const { kind, name, size, declaration, members, values } = type
  const changes = [declaration && arrow(declaration), size && `${arrow(size)} bytes`]
  const told = changes.filter(Boolean).join('; ')
  yield `~ ${kind} ${name}${told && `: ${told}`}`
  for (const member of members?.removed ?? []) yield `    - ${placed(member)}`
  for (const member of members?.added ?? []) yield `    + ${placed(member)}`
  for (const line of memberLines(members?.changed ?? [])) yield `    ~ ${line}`
  for (const value of values?.removed ?? []) yield `    - ${valued(value)}`
  for (const value of values?.added ?? []) yield `    + ${valued(value)}`
  for (const { name, value } of values?.changed ?? []) yield `    ~ ${name} = ${arrow(value)}`
}

function placed({ name, type, offset, bitfieldSize }: MemberPlace): string {
  return `${name}: ${type}${bitfieldSize ? `:${bitfieldSize}` : ''} at ${place(offset)}`
}

function valued({ name, value }: EnumValue): string {
  return `${name} = ${value}`
}

/** Consecutive members that only moved, by the same distance, share one line. */
function* memberLines(changed: readonly MemberChange[]): Generator<string> {
  for (let i = 0; i < changed.length; ) {
    const first = changed[i]!
    const distance = distanceOf(first)
    let end = i + 1
    while (distance !== undefined && changed[end] && distanceOf(changed[end]!) === distance) end++
    if (end - i > 1) {
      const by = `${distance! > 0 ? '+' : '-'}${place(Math.abs(distance!))}`
      yield `${first.name} … ${changed[end - 1]!.name}: ${end - i} members moved by ${by}`
    } else {
      yield memberLine(first)
    }
    i = end
  }
}

/** Bits by which a member moved; undefined if anything but its offset changed. */
function distanceOf({ offset, type, bitfieldSize, size }: MemberChange): number | undefined {
  return !offset || type || bitfieldSize || size ? undefined : offset.new - offset.old
}

function memberLine({ name, type, offset, bitfieldSize, size }: MemberChange): string {
  const changes = [
    type && arrow(type),
    offset && `at ${place(offset.old)} → ${place(offset.new)}`,
    bitfieldSize && `${arrow(bitfieldSize)} bits`,
    size && `${arrow(size)} bytes`,
  ]
  return `${name}: ${changes.filter(Boolean).join('; ')}`
}

function place(bits: number): string {
  return bits % 8 === 0 ? `${bits / 8}` : `${Math.floor(bits / 8)}:${bits % 8}`
}

function arrow<T>({ old, new: now }: Change<T>): string {
  return `${old} → ${now}`
}
