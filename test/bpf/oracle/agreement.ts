/*
 * Compares libbpf's relocation results with ours, and gives one line per difference, which names the relocation. We may
 * have more results: after a fatal relocation libbpf stops with that program.
 */
import { memorySource, openElf, type RelocatedObject } from '../../../bpf/index.ts'
import type { Decision, Outcome, Relocated } from './libbpf.ts'

/** The size of an Elf64_Rel in bytes. */
const REL_SIZE = 16

/** The result of one side for one relocation. */
export type Ours = Pick<Decision, 'section' | 'index' | 'instruction' | 'outcome'>

/** Our results in the form of the oracle's. */
function oursOf({ relocations }: RelocatedObject): (Ours & { candidates: number[] })[] {
  return relocations.map(({ relocation: { section, index }, candidates, ...rest }) => {
    return { section, index, candidates: [...candidates], ...rest }
  })
}

/** The differing results. */
export function disagreements(theirs: Relocated, ours: readonly Ours[]): string[] {
  const mine = new Map(ours.map((one) => [`${one.section} #${one.index}`, one]))
  const lines: string[] = []
  for (const decision of theirs.decisions) {
    const key = `${decision.section} #${decision.index}`
    const one = mine.get(key)
    mine.delete(key)
    if (one === undefined) lines.push(`${key}: libbpf ${say(decision)}, ours has none`)
    else if (!same(decision, one)) {
      lines.push(`${key} (${decision.kind}): libbpf ${say(decision)}, ours ${say(one)}`)
    }
  }
  const stopped = theirs.decisions.some(({ outcome }) => outcome.is === 'fatal')
  if (!stopped) for (const key of mine.keys()) lines.push(`${key}: ours has it, libbpf has not`)
  return lines
}

/**
 * The differences in results, candidates and patched instructions. For a tampered object its bytes are needed: a record
 * may point to a load of a map's address, and libbpf writes that address after all CO-RE relocations.
 */
export function differences(
  theirs: Relocated,
  ours: RelocatedObject,
  tampered?: Uint8Array,
): string[] {
  const linked = tampered ? linkedIn(tampered, ours.code.keys()) : new Set()
  const mine = oursOf(ours)
  const lines = disagreements(theirs, mine)
  const candidates = new Map(mine.map((one) => [`${one.section} #${one.index}`, one.candidates]))
  for (const { section, index, outcome, ...their } of theirs.decisions) {
    const key = `${section} #${index}`
    if (outcome.is === 'fatal' || `${their.candidates}` === `${candidates.get(key)}`) continue
    lines.push(`${key}: libbpf's candidates ${their.candidates}, ours ${candidates.get(key)}`)
  }
  for (const { relocation, program, instruction } of ours.relocations) {
    const loaded = theirs.programs.get(program.name)
    // a failed load leaves instructions unrelocated, and subprograms have moved
    if (loaded?.result !== 0) continue
    const { section, offset } = relocation
    if (linked.has(`${section} ${offset}`)) continue
    const bytes = ours.code.get(section)!.subarray(offset, offset + 8)
    const left = loaded.instructions.subarray(instruction * 8, instruction * 8 + 8)
    if (!left.equals(bytes)) lines.push(`${section} #${relocation.index}: other bytes`)
  }
  return lines
}

/** `SECTION OFFSET` of the instructions that ELF relocations patch: 64-bit loads, each of two instructions. */
function linkedIn(object: Uint8Array, sections: Iterable<string>): Set<string> {
  const elf = openElf(memorySource(object))
  const linked = new Set<string>()
  for (const section of sections) {
    const rel = elf.section(`.rel${section}`)
    if (!rel) continue
    const view = new DataView(object.buffer, object.byteOffset + rel.offset, rel.size)
    for (let at = 0; at + REL_SIZE <= view.byteLength; at += REL_SIZE) {
      const offset = Number(view.getBigUint64(at, elf.byteOrder === 'little'))
      linked.add(`${section} ${offset}`).add(`${section} ${offset + 8}`)
    }
  }
  return linked
}

function same(decision: Decision, ours: Ours): boolean {
  const { instruction, outcome } = decision
  if (instruction !== undefined && instruction !== ours.instruction) return false
  // Each side words the reason in its own way, so it is not compared.
  if (outcome.is === 'fatal') return ours.outcome.is === 'fatal'
  return say(decision) === say({ ...ours, instruction })
}

function say({ outcome, instruction }: Pick<Decision, 'outcome' | 'instruction'>): string {
  return `${sayOutcome(outcome)} at instruction ${instruction}`
}

function sayOutcome(outcome: Outcome): string {
  switch (outcome.is) {
    case 'ok': {
      const bytes = outcome.bytes ? `, ${outcome.bytes.old} → ${outcome.bytes.new} bytes` : ''
      return `${outcome.old} → ${outcome.new}${bytes}`
    }
    case 'absent':
      return `${outcome.old} → absent`
    case 'poisoned':
      return `poisoned: ${outcome.why}`
    case 'fatal':
      return `fatal: ${outcome.why}`
  }
}
