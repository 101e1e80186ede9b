/*
 * A process that runs cases, so that one that has no end or takes all memory can be ended: it says which seed it begins
 * before it does, what it found, and at the end of its task what it counted.
 */
import { caseOf, run } from './case.ts'
import { Defect } from './door.ts'

/** Seeds from `first` to below `end`. */
export interface Task {
  readonly first: number
  readonly end: number
}

export type Report =
  | { readonly is: 'begin'; readonly seed: number }
  | { readonly is: 'finding'; readonly seed: number; readonly what: string }
  | { readonly is: 'done'; readonly tally: Tally }

/** What a worker counted in one task. */
export interface Tally {
  /** by door and outcome */
  readonly counts: Readonly<Record<string, Readonly<Record<string, number>>>>
  /** the case that took most processor time, in milliseconds */
  readonly slowest: { readonly seed: number; readonly time: number }
  /** most memory that the process had so far, in bytes */
  readonly memory: number
}

/** Processor time of one case, in milliseconds. Those of a megabyte take up to a second. */
const MAX_TIME = 10_000
/** Memory of the whole process, in bytes; 150 MiB of it are Node's and the corpus's. */
const MAX_MEMORY = 512 << 20

function tell(report: Report): void {
  process.send!(report)
}

function runAll({ first, end }: Task): Tally {
  const counts: Record<string, Record<string, number>> = {}
  let slowest = { seed: first, time: 0 }
  for (let seed = first; seed < end; seed++) {
    tell({ is: 'begin', seed })
    const began = processorTime()
    for (const { door, outcome } of visits(seed)) {
      counts[door] ??= {}
      counts[door][outcome] = (counts[door][outcome] ?? 0) + 1
    }
    const time = processorTime() - began
    if (time > slowest.time) slowest = { seed, time }
    if (time > MAX_TIME) tell({ is: 'finding', seed, what: `${Math.round(time)} ms` })
    if (memory() > MAX_MEMORY) {
      tell({ is: 'finding', seed, what: `${memory() >> 20} MiB` })
      // the mark stays: whoever comes next would be blamed
      process.exit()
    }
  }
  return { counts, slowest, memory: memory() }
}

function visits(seed: number) {
  try {
    return run(caseOf(seed))
  } catch (error) {
    if (!(error instanceof Defect)) throw error
    tell({ is: 'finding', seed, what: error.message })
    return []
  }
}

function processorTime(): number {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1000
}

function memory(): number {
  return process.resourceUsage().maxRSS * 1024
}

process.on('message', (task: Task) => tell({ is: 'done', tally: runAll(task) }))
