/* The progress of a run and its summary: bars on a terminal, lines elsewhere, NDJSON with `--json`. */
import { MultiBar, type SingleBar } from 'cli-progress'
import type { GenerateEvent, OnEvent, Summary } from '../../generator/index.ts'
import {
  FAILURE_CODES,
  type FailureCode,
  type KernelName,
  type RetryClass,
} from '../../storage/index.ts'
import { fetchKeysCommand } from './input.ts'
import { columns, counted, printable } from './output.ts'

export interface ProgressView {
  onEvent: OnEvent
  /** Prints a line for people between the events. */
  say(line: string): void
  /** Leaves the terminal as it was. May be called twice. */
  end(): void
}

/** The options of a run that the command for its missing keys needs, too. */
type KeyOptions = Parameters<typeof fetchKeysCommand>[1]

/** The least time between two progress events of a job or index, in milliseconds, in NDJSON. */
const PROGRESS_INTERVAL = 1000

/** The view for programs writes to standard output, the views for people to standard error. */
export function progress(json: boolean, keys: KeyOptions = {}): ProgressView {
  if (json) return { onEvent: printJson(), say: printError, end() {} }
  const lineOf = (event: GenerateEvent) => printableLine(event, keys)
  if (process.stderr.isTTY) return bars(lineOf)
  return { onEvent: (event) => printLine(lineOf(event)), say: printError, end() {} }
}

const printError = (line: string): void => console.error(line)

function printJson(): OnEvent {
  const last = new Map<string, number>()
  return (event) => {
    if (event.event === 'progress' || event.event === 'reading') {
      const [now, id] = [Date.now(), 'job' in event ? event.job : indexIdOf(event)]
      if (now - (last.get(id) ?? 0) < PROGRESS_INTERVAL) return
      last.set(id, now)
    }
    console.log(JSON.stringify(event))
  }
}

const indexIdOf = ({ source, suite, arch }: { source: string; suite: string; arch: string }) =>
  `${source} ${suite} ${arch}`
const idOf = ({ arch, release }: KernelName): string => `${release} ${arch}`
/** The bytes read of a package, of its size if that is known. */
const bytesOf = (read: number, size: number | undefined): string =>
  size ? `${mb(read)}/${mb(size)} MB` : `${mb(read)} MB`

const mb = (bytes: number): string => (bytes / 1e6).toFixed(0)

const QUEUE_STATES = {
  lost: 'connection to the queue lost, reconnecting',
  back: 'connection to the queue restored',
  unattended: 'no worker takes jobs',
}

/** An event as a line for people. Packages and servers choose names freely, so the line is made printable. */
function printableLine(event: GenerateEvent, keys: KeyOptions): string | undefined {
  const line = textOf(event, keys)
  return line === undefined ? undefined : printable(line)
}

function textOf(event: GenerateEvent, keys: KeyOptions): string | undefined {
  switch (event.event) {
    case 'reading':
      return undefined
    case 'missing-keys':
      return missingKeysText(event, keys)
    case 'discovered': {
      const { source, suite, arch, packages, refused } = event
      const left = refused ? `, ${refused.entries} invalid and left out: ${refused.message}` : ''
      return `${source} ${suite} ${arch}: ${packages} packages${left}`
    }
    case 'source-failed':
      if (event.failure.code === 'no_keyring') return undefined // the first line said so
      return `${event.source} ${event.suite} ${event.arch}: ${event.failure.code}: ${event.failure.message}`
    case 'planned':
      return `${event.jobs} to do, ${event.skipped} there already`
    case 'queue':
      return `${QUEUE_STATES[event.state]}: ${event.message}`
    case 'started': {
      const { kernel, size, instead } = event
      const why = instead ? ` instead of ${instead.package}: ${instead.message}` : ''
      return `${idOf(kernel)}: ${event.package}${size ? `, ${mb(size)} MB` : ''}${why}`
    }
    case 'stage':
      return `${idOf(event.kernel)}: ${event.stage}`
    case 'progress':
      return undefined
    case 'published': {
      const { btf, package: from } = event.record
      const part =
        from.authenticated === 'prefix' && from.size ? ` of ${mb(from.size)}, stopped early` : ''
      const read = `${mb(event.read)} MB read${part}`
      return `${idOf(event.kernel)}: done in ${event.seconds.toFixed(1)} s, ${read}, BTF ${btf?.size} bytes`
    }
    case 'failed':
      return `${idOf(event.kernel)}: failed: ${event.failure.code}: ${event.failure.message}`
    default:
      return event satisfies never
  }
}

/** Sources that are named one by one in a command. */
const MAX_NAMED = 4

function missingKeysText(
  { sources, published }: GenerateEvent & { event: 'missing-keys' },
  keys: KeyOptions,
): string {
  const command = fetchKeysCommand(published.length > MAX_NAMED ? [] : published, keys)
  const others = sources.length > published.length ? 'btfmill sources says where to save keys' : ''
  const help = [...(published.length > 0 ? [`run ${command}`] : []), ...(others ? [others] : [])]
  return `no keys on this machine to check signatures of ${sources.join(', ')}: ${help.join('; ')}`
}

function printLine(line: string | undefined): void {
  if (line !== undefined) console.error(line)
}

/** Clears the rest of the line, where a bar may have been. */
const CLEAR = '\u001b[K'

/** Shows one line for the run and one for each running job; past events scroll away above them. */
function bars(lineOf: (event: GenerateEvent) => string | undefined): ProgressView {
  const multi = new MultiBar({
    format: '{bar} {percentage}% {bytes} {stage} {time} {name}',
    barsize: 20,
    clearOnComplete: true,
    stream: process.stderr,
    forceRedraw: true, // the clocks advance
  })
  const tally = new Tally()
  const top = multi.create(1, 0, {}, { format: '{text}' })
  const running = new Map<string, { bar: SingleBar; begun: number }>()
  multi.on('redraw-pre', () => {
    top.update(0, { text: tally.text })
    for (const { bar, begun } of running.values())
      bar.update({ time: clock((performance.now() - begun) / 1000) })
  })
  const say = (line: string) => multi.log(`${line}${CLEAR}\n`)
  const end = (job: string) => {
    const known = running.get(job)
    if (known) multi.remove(known.bar)
    running.delete(job)
  }
  const begin = (event: GenerateEvent & { event: 'started' }) => {
    const { kernel, size } = event
    const payload = { name: idOf(kernel), stage: '', time: '', bytes: bytesOf(0, size) }
    end(event.job) // the job starts over with another package
    running.set(event.job, { bar: multi.create(size ?? 1, 0, payload), begun: performance.now() })
  }
  const showIndex = (event: GenerateEvent & { event: 'reading' }) => {
    const { read, size, files } = event
    const id = indexIdOf(event)
    const bytes = bytesOf(read, size)
    const known = running.get(id)
    const payload = { name: printable(id), stage: `file ${files}`, time: '', bytes }
    const bar = known?.bar ?? multi.create(size ?? 1, 0, payload)
    if (!known) running.set(id, { bar, begun: performance.now() })
    bar.setTotal(size ?? 1)
    bar.update(size ? read : 0, payload)
  }
  let ended = false
  return {
    say,
    onEvent(event) {
      tally.see(event)
      if (event.event === 'started') begin(event)
      else if (event.event === 'reading') showIndex(event)
      else if (event.event === 'stage') running.get(event.job)?.bar.update({ stage: event.stage })
      else if (event.event === 'progress')
        running.get(event.job)?.bar.update(event.size ? event.read : 0, {
          bytes: bytesOf(event.read, event.size),
        })
      else {
        if ('job' in event) end(event.job)
        else if ('suite' in event) end(indexIdOf(event))
        const line = lineOf(event)
        if (line !== undefined) say(line)
      }
    },
    end() {
      if (ended) return
      ended = true
      multi.update() // shows the last event
      multi.stop()
    },
  }
}

/** The counts of a run so far, for the line above the bars. */
class Tally {
  readonly #started = performance.now()
  /** the index that was read last */
  #source = ''
  #found = 0
  #planned: number | undefined
  #there = 0
  #published = 0
  #failed = 0
  /** bytes read, by job */
  readonly #read = new Map<string, number>()

  see(event: GenerateEvent): void {
    switch (event.event) {
      case 'discovered':
        this.#source = `${event.source} ${event.suite} ${event.arch}`
        this.#found += event.packages
        break
      case 'planned':
        this.#planned = event.jobs
        this.#there = event.skipped
        break
      case 'progress':
        this.#read.set(event.job, event.read)
        break
      case 'published':
        this.#read.set(event.job, event.read)
        this.#published++
        break
      case 'failed':
        this.#failed++
        break
    }
  }

  /** `debian bookworm i686: 23 packages found, 3 of 20 done, 1 failed, 2 there already, 512 MB read, 1:05` */
  get text(): string {
    const read = this.#read.values().reduce((sum, bytes) => sum + bytes, 0)
    const done = this.#published + this.#failed
    const parts = [
      ...(this.#source ? [`${this.#source}: ${counted(this.#found, 'package')} found`] : []),
      this.#planned === undefined ? `${done} done` : `${done} of ${this.#planned} done`,
      ...(this.#failed > 0 ? [`${this.#failed} failed`] : []),
      ...(this.#there > 0 ? [`${this.#there} there already`] : []),
      `${(read / 1e6).toFixed(0)} MB read`,
      clock((performance.now() - this.#started) / 1000),
    ]
    return parts.join(', ')
  }
}

/** Seconds as `1:05` or `1:01:05`. */
function clock(seconds: number): string {
  const whole = Math.floor(seconds)
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60]
  const two = (value: number) => String(value).padStart(2, '0')
  return hours > 0 ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`
}

/** When packages that failed are tried again. */
const NEXT_TRY: Readonly<Record<RetryClass, string>> = {
  never: 'with another btfmill or pahole',
  later: 'when the pause is over',
  now: 'with the next run',
}

/** The summary of a run for people: one line, and a table of the failures. Without a newline at its end. */
export function summaryText(summary: Summary): string {
  const { published, skipped, postponed, failed, sourcesFailed, left, queued, read } = summary
  const failures = Object.values(failed).reduce((sum, count) => sum + count, 0)
  const parts = [
    `${published} published`,
    `${skipped} there already`,
    ...(postponed > 0 ? [`${postponed} failed before and not due`] : []),
    ...(failures > 0 ? [`${failures} failed`] : []),
    ...(sourcesFailed > 0
      ? [`${counted(sourcesFailed, 'index', 'indexes')} could not be read`]
      : []),
    ...(left > 0 ? [`${left} not started`] : []),
    ...(queued > 0 ? [`${queued} queued`] : []),
    ...(read > 0 ? [`${(read / 1e6).toFixed(1)} MB of packages read`] : []),
  ]
  return [parts.join('; '), ...(failures > 0 ? ['', ...failureTable(failed)] : [])].join('\n')
}

/** Failures by retry class, then by their number. */
function failureTable(failed: Summary['failed']): string[] {
  const rows = (Object.entries(failed) as [FailureCode, number][])
    .map(([code, count]) => ({ code, count, retry: FAILURE_CODES[code] as RetryClass }))
    .sort((a, b) => orderOf(a.retry) - orderOf(b.retry) || b.count - a.count)
  return columns([
    ['retry', 'failure', 'packages', 'next try'],
    ...rows.map(({ retry, code, count }) => [retry, code, String(count), NEXT_TRY[retry]]),
  ])
}

const orderOf = (retry: RetryClass): number => Object.keys(NEXT_TRY).indexOf(retry)
