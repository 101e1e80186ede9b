/*
 * Where two deciders on relocations part: libbpf's decisions against ours, a line for each difference, in words that
 * name the relocation. Ours may know more: after a fatal relocation libbpf goes no further with that program.
 */
import type { Decision, Outcome, Relocated } from './libbpf.ts'

/** One of our relocations, in libbpf's terms. */
export interface Ours {
  section: string
  index: number
  instruction: number
  outcome: Outcome
}

export function disagreements(theirs: Relocated, ours: readonly Ours[]): string[] {
  const mine = new Map(ours.map((one) => [`${one.section} #${one.index}`, one]))
  const lines: string[] = []
  for (const decision of theirs.decisions) {
    const key = `${decision.section} #${decision.index}`
    const one = mine.get(key)
    mine.delete(key)
    if (one === undefined) lines.push(`${key}: libbpf ${say(decision.outcome)}, ours has none`)
    else if (!same(decision, one)) {
      lines.push(
        `${key} (${decision.kind}): libbpf ${say(decision.outcome)}, ours ${say(one.outcome)}`,
      )
    }
  }
  const stopped = theirs.decisions.some(({ outcome }) => outcome.is === 'fatal')
  if (!stopped) for (const key of mine.keys()) lines.push(`${key}: ours has it, libbpf has not`)
  return lines
}

function same(decision: Decision, ours: Ours): boolean {
  const { instruction, outcome } = decision
  if (instruction !== undefined && instruction !== ours.instruction) return false
  // The reason is told in each one's own words.
  if (outcome.is === 'fatal') return ours.outcome.is === 'fatal'
  return say(outcome) === say(ours.outcome)
}

function say(outcome: Outcome): string {
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
