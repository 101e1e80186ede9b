// `npm run fuzz [-- --count N --seed S]` runs N cases from seed S on, in two processes; `--count 1` repeats one case.
// Findings are printed, and written to .cache/fuzz with the bytes of the case. With a finding the exit status is 1.
import { type ChildProcess, fork } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { mib, table } from '../bench/measure.ts'
import { caseOf } from './case.ts'
import type { Report, Tally, Task } from './worker.ts'

const WORKERS = 2
/** The number of cases in a worker's task. */
const BATCH = 500
/** The heap limit of a worker, in MiB. */
const HEAP = 256
/** The time limit of one case, in milliseconds; long, since the machine may be busy. */
const HANG = 300_000
const folder = join(resolve(import.meta.dirname, '../..'), '.cache/fuzz')

class Fuzzer {
  readonly #end: number
  readonly #count: number
  #next: number
  #done = 0
  #findings = 0
  readonly #counts = new Map<string, Map<string, number>>()
  #slowest = { seed: 0, time: 0 }
  #memory = 0
  readonly #began = performance.now()

  constructor(seed: number, count: number) {
    this.#next = seed
    this.#end = seed + count
    this.#count = count
  }

  /** Runs all cases. Returns the number of findings. */
  async run(): Promise<number> {
    const progress = setInterval(() => console.log(this.#progress()), 10_000)
    await Promise.all(Array.from({ length: WORKERS }, () => this.#work()))
    clearInterval(progress)
    console.log(`${this.#progress()}\n\n${this.#summary()}`)
    return this.#findings
  }

  async #work(): Promise<void> {
    for (let task = this.#take(); task; task = this.#take()) {
      let rest: Task | undefined = task
      // if a worker dies, a new one does the rest of its task
      while (rest) rest = await this.#batches(rest)
    }
  }

  #take(): Task | undefined {
    if (this.#next >= this.#end) return undefined
    const first = this.#next
    this.#next = Math.min(first + BATCH, this.#end)
    return { first, end: this.#next }
  }

  /** Starts a worker and gives it one task after the other. Returns the rest of the task if the worker dies. */
  #batches(task: Task): Promise<Task | undefined> {
    const worker = fork(new URL('./worker.ts', import.meta.url), {
      execArgv: [`--max-old-space-size=${HEAP}`],
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    })
    let current = task
    let seed = task.first
    let found = -1
    let idle = false
    const watchdog = this.#watch(worker)
    worker.on('message', (report: Report) => {
      watchdog.refresh()
      switch (report.is) {
        case 'begin':
          seed = report.seed
          break
        case 'finding':
          found = report.seed
          this.#find(report.seed, report.what)
          break
        case 'done': {
          this.#add(current, report.tally)
          const next = this.#take()
          if (next) {
            current = next
            worker.send(next)
          } else {
            idle = true
            worker.kill()
          }
        }
      }
    })
    worker.send(task)
    return new Promise((done) => {
      worker.on('exit', (_, signal) => {
        clearTimeout(watchdog)
        if (idle) return done(undefined)
        if (found !== seed) {
          this.#find(
            seed,
            signal === 'SIGKILL'
              ? `the case did not end within ${HANG} ms`
              : `the worker crashed or used more than ${HEAP} MiB of heap: ${signal}`,
          )
        }
        this.#done += seed + 1 - current.first
        done(seed + 1 < current.end ? { first: seed + 1, end: current.end } : undefined)
      })
    })
  }

  #watch(worker: ChildProcess): NodeJS.Timeout {
    return setTimeout(() => worker.kill('SIGKILL'), HANG)
  }

  #find(seed: number, what: string): void {
    this.#findings++
    const { name, sort, bytes } = caseOf(seed)
    const text = `seed ${seed}: ${sort} from ${name}, ${bytes.length} bytes: ${what}`
    console.log(text)
    mkdirSync(folder, { recursive: true })
    writeFileSync(join(folder, `${seed}.txt`), `${text}\n`)
    writeFileSync(join(folder, `${seed}.bin`), bytes)
  }

  #add({ first, end }: Task, { counts, slowest, memory }: Tally): void {
    this.#done += end - first
    this.#memory = Math.max(this.#memory, memory)
    if (slowest.time > this.#slowest.time) this.#slowest = slowest
    for (const [door, outcomes] of Object.entries(counts)) {
      const known = this.#counts.get(door) ?? new Map<string, number>()
      this.#counts.set(door, known)
      for (const [outcome, count] of Object.entries(outcomes)) {
        known.set(outcome, (known.get(outcome) ?? 0) + count)
      }
    }
  }

  #progress(): string {
    const seconds = (performance.now() - this.#began) / 1000
    return [
      `${this.#done} of ${this.#count} cases`,
      `${this.#findings} findings`,
      `${Math.round(this.#done / seconds)} cases/s`,
    ].join(', ')
  }

  #summary(): string {
    const rows = [...this.#counts]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([door, outcomes]) => {
        const errors = [...outcomes]
          .filter(([outcome]) => outcome !== 'value')
          .sort(([, a], [, b]) => b - a)
        const sum = errors.reduce((all, [, count]) => all + count, 0)
        const codes = errors.map(([code, count]) => `${code} ${count}`).join(', ')
        return { row: [door, String(outcomes.get('value') ?? 0), String(sum)], codes }
      })
    const lines = table([['entry point', 'values', 'errors'], ...rows.map(({ row }) => row)]).split(
      '\n',
    )
    const { seed, time } = this.#slowest
    return [
      ...lines.map((line, i) => `${line}  ${rows[i - 1]?.codes ?? ''}`.trimEnd()),
      '',
      `slowest case: seed ${seed}, ${Math.round(time)} ms; peak memory of a worker: ${mib(this.#memory)}`,
    ].join('\n')
  }
}

/** Parses a whole number of the command line. Throws for any other text. */
function whole(text: string, least: number): number {
  const value = Number(text)
  if (!Number.isSafeInteger(value) || value < least)
    throw new Error(`invalid number "${text}": expected a whole number from ${least}`)
  return value
}

const { values } = parseArgs({
  options: {
    count: { type: 'string', default: '1000000' },
    seed: { type: 'string', default: '1' },
  },
})
const findings = await new Fuzzer(whole(values.seed, 0), whole(values.count, 1)).run()
process.exitCode = findings > 0 ? 1 : 0
