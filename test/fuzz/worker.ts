/*
 * A process that runs cases, so that a case that hangs or takes all memory can be killed. It reports each seed before
 * it runs the case, each finding, and its counts at the end of a task.
 */
import { caseOf, run } from './case.ts'
import { Defect } from './door.ts'

/** The seeds from `first` up to, but without, `end`. */
export interface Task {
  readonly first: number
  readonly end: number
}

export type Report =
  | { readonly is: 'begin'; readonly seed: number }
  | { readonly is: 'finding'; readonly seed: number; readonly what: string }
  | { readonly is: 'done'; readonly tally: Tally }

/** A worker's counts for one task. */
export interface Tally {
  /** by entry point and outcome */
  readonly counts: Readonly<Record<string, Readonly<Record<string, number>>>>
  /** the case with the most CPU time, in milliseconds */
  readonly slowest: { readonly seed: number; readonly time: number }
  /** peak memory of the process so far, in bytes */
  readonly memory: number
}

/** The limit of CPU time per case, in milliseconds. A case of a megabyte takes up to a second. */
const MAX_TIME = 2_000
/** The memory limit of the process, in bytes. Node and the corpus take 150 MiB of it. */
const MAX_MEMORY = 512 << 20

function tell(report: Report): void {
  process.send!(report)
}

async function runAll({ first, end }: Task): Promise<Tally> {
  const counts: Record<string, Record<string, number>> = {}
  let slowest = { seed: first, time: 0 }
  for (let seed = first; seed < end; seed++) {
    tell({ is: 'begin', seed })
    const began = processorTime()
    for (const { door, outcome } of await visits(seed)) {
      counts[door] ??= {}
      counts[door][outcome] = (counts[door][outcome] ?? 0) + 1
    }
    const time = processorTime() - began
    if (time > slowest.time) slowest = { seed, time }
    if (time > MAX_TIME) tell({ is: 'finding', seed, what: `it took ${Math.round(time)} ms` })
    if (memory() > MAX_MEMORY) {
      tell({ is: 'finding', seed, what: `the process used ${memory() >> 20} MiB` })
      // the peak stays, so every later case would be reported too
      process.exit()
    }
  }
  return { counts, slowest, memory: memory() }
}

async function visits(seed: number) {
  try {
    return await run(caseOf(seed))
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

process.on('message', async (task: Task) => tell({ is: 'done', tally: await runAll(task) }))
