/* What a run shows while it works: bars on a terminal, lines elsewhere, NDJSON where that is asked for. */
import { MultiBar, type SingleBar } from 'cli-progress'
import type { GenerateEvent, OnEvent } from '../../generator/index.ts'
import type { KernelName } from '../../storage/index.ts'
import { printable } from './output.ts'
import { clock, Tally } from './tally.ts'

export interface ProgressView {
  onEvent: OnEvent
  /** Tells people something beside the events. */
  say(line: string): void
  /** Leaves the terminal as it was; calling it twice does no harm. */
  end(): void
}

/** How often each job's bytes are told to a program, in milliseconds. */
const PACE = 1000

/** The view that fits where its output goes: to programs on standard output, to people on standard error. */
export function progress(json: boolean): ProgressView {
  if (json) return { onEvent: printJson(), say: printError, end() {} }
  return process.stderr.isTTY ? bars() : { onEvent: printLine, say: printError, end() {} }
}

const printError = (line: string): void => console.error(line)

function printJson(): OnEvent {
  const last = new Map<string, number>()
  return (event) => {
    if (event.event === 'progress') {
      const now = Date.now()
      if (now - (last.get(event.job) ?? 0) < PACE) return
      last.set(event.job, now)
    }
    console.log(JSON.stringify(event))
  }
}

const idOf = ({ arch, release }: KernelName): string => `${release} ${arch}`
/** How far a package was read, of how much where that is known. */
const bytesOf = (read: number, size: number | undefined): string =>
  size ? `${mb(read)}/${mb(size)} MB` : `${mb(read)} MB`

const mb = (bytes: number): string => (bytes / 1e6).toFixed(0)

const QUEUE_STATES = {
  lost: 'the queue is lost, and looked for',
  back: 'the queue is back',
  unattended: 'nobody works',
}

/** An event for people; packages and servers name things as they like. */
function lineOf(event: GenerateEvent): string | undefined {
  const line = textOf(event)
  return line === undefined ? undefined : printable(line)
}

function textOf(event: GenerateEvent): string | undefined {
  switch (event.event) {
    case 'discovered':
      return `${event.source} ${event.suite} ${event.arch}: ${event.packages} packages`
    case 'source-failed':
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

function printLine(event: GenerateEvent): void {
  const line = lineOf(event)
  if (line !== undefined) console.error(line)
}

/** Takes away what stands to the right: of the bars that were there. */
const CLEAR = '\u001b[K'

/** One line for the run and one for each job that runs; what has happened scrolls away above them. */
function bars(): ProgressView {
  const multi = new MultiBar({
    format: '{bar} {percentage}% {bytes} {stage} {time} {name}',
    barsize: 20,
    clearOnComplete: true,
    stream: process.stderr,
    forceRedraw: true, // time passes
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
    end(event.job) // of another package, which it is begun instead of
    running.set(event.job, { bar: multi.create(size ?? 1, 0, payload), begun: performance.now() })
  }
  let ended = false
  return {
    say,
    onEvent(event) {
      tally.see(event)
      if (event.event === 'started') begin(event)
      else if (event.event === 'stage') running.get(event.job)?.bar.update({ stage: event.stage })
      else if (event.event === 'progress')
        running.get(event.job)?.bar.update(event.size ? event.read : 0, {
          bytes: bytesOf(event.read, event.size),
        })
      else {
        if ('job' in event) end(event.job)
        const line = lineOf(event)
        if (line !== undefined) say(line)
      }
    },
    end() {
      if (ended) return
      ended = true
      multi.update() // what was said last
      multi.stop()
    },
  }
}
