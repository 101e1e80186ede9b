/* What a run shows while it works: bars on a terminal, lines elsewhere, NDJSON where that is asked for. */
import { MultiBar, type SingleBar } from 'cli-progress'
import type { GenerateEvent, OnEvent } from '../../generator/index.ts'
import type { KernelName } from '../../storage/index.ts'

export interface ProgressView {
  onEvent: OnEvent
  /** Leaves the terminal as it was; calling it twice does no harm. */
  end(): void
}

/** The view that fits where standard output goes. */
export function progress(json: boolean): ProgressView {
  if (json)
    return {
      onEvent: (event) => event.event !== 'progress' && console.log(JSON.stringify(event)),
      end() {},
    }
  return process.stderr.isTTY ? bars() : { onEvent: printLine, end() {} }
}

const idOf = ({ arch, release }: KernelName): string => `${release} ${arch}`
const mb = (bytes: number): string => (bytes / 1e6).toFixed(0)

function lineOf(event: GenerateEvent): string | undefined {
  switch (event.event) {
    case 'discovered':
      return `${event.source} ${event.suite} ${event.arch}: ${event.packages} packages`
    case 'source-failed':
      return `${event.source} ${event.suite} ${event.arch}: ${event.failure.code}: ${event.failure.message}`
    case 'planned':
      return `${event.jobs} to do, ${event.skipped} there already`
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

function bars(): ProgressView {
  const multi = new MultiBar({
    format: '{bar} {percentage}% {read}/{size} MB {stage} {name}',
    clearOnComplete: true,
    hideCursor: true,
    stream: process.stderr,
  })
  const running = new Map<string, SingleBar>()
  const log = (event: GenerateEvent) => {
    const line = lineOf(event)
    if (line !== undefined) multi.log(`${line}\n`)
  }
  return {
    onEvent(event) {
      if (!('kernel' in event)) return log(event)
      const id = idOf(event.kernel)
      const bar = running.get(id)
      switch (event.event) {
        case 'started':
          if (bar) multi.remove(bar)
          running.set(
            id,
            multi.create(event.size ?? 0, 0, {
              name: id,
              stage: '',
              read: 0,
              size: mb(event.size ?? 0),
            }),
          )
          break
        case 'stage':
          bar?.update({ stage: event.stage })
          break
        case 'progress':
          bar?.update(event.read, { read: mb(event.read) })
          break
        default:
          if (bar) multi.remove(bar)
          running.delete(id)
          log(event)
      }
    },
    end: () => multi.stop(),
  }
}
