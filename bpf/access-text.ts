/* The accesses and queries of relocations as C. */

import { decodeText } from './bytes.ts'
import type { CoreRelocation } from './ext.ts'
import type { BpfObject } from './object.ts'
import { RelocationError } from './relocation-error.ts'
import { MAX_NAME, short } from './short.ts'
import { parseSpec, subjectOf } from './spec.ts'

/** The member, type or enumerator that an access as C ends with, without flavour and index. */
export function lastName(access: string): string {
  const names = access.match(/[A-Za-z_]\w*/g) ?? []
  return (names.at(-1) ?? '').replace(/___[^_].*$/, '')
}

function nameText(name: Uint8Array): string {
  // a character has at most 4 bytes
  return short(decodeText(name.subarray(0, 4 * MAX_NAME + 4)))
}

/** The access or query of a relocation as C. */
export function accessText(object: BpfObject, relocation: CoreRelocation): string {
  const { btf } = object
  const { kind, name } = btf.type(relocation.type)
  const type = { kind, name: short(name) }
  const sort = { STRUCT: 'struct ', UNION: 'union ', ENUM: 'enum ', ENUM64: 'enum ' }
  const named = `${sort[type.kind as keyof typeof sort] ?? ''}${type.name || '(anonymous)'}`
  try {
    const subject = subjectOf(relocation.kind)
    if (subject === 'type') return named
    const [first, ...rest] = parseSpec(btf, relocation).accessors
    if (subject === 'enumerator') return `${named}: ${nameText(first!.name!)}`
    const root = first!.index > 0 ? `${type.name}[${first!.index}]` : type.name
    return rest.reduce((text, step, i) => {
      if (step.name === undefined) return `${text}[${step.index}]`
      return `${text}${i === 0 && first!.index === 0 ? '->' : '.'}${nameText(step.name)}`
    }, root)
  } catch (error) {
    if (error instanceof RelocationError) return `${named} + ${short(relocation.access)}`
    throw error
  }
}
