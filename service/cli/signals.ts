/*
 * How signals end a run. The first SIGINT starts no new job and lets running jobs finish. A second SIGINT, or SIGTERM,
 * stops all jobs at once and leaves nothing half-written, as does a reader that closes the pipe of the output. The next
 * signal kills the process.
 */
import { BROKEN_PIPE, onBrokenPipe } from './output.ts'

export interface Stop {
  /** start no new job */
  drain: AbortSignal
  /** stop all jobs at once */
  signal: AbortSignal
}

/** Listens for signals from now on. `say` prints what the first SIGINT does. */
export function stopOnSignals(say: (line: string) => void): Stop {
  const [drain, stop] = [new AbortController(), new AbortController()]
  const end = (name: string) => {
    process.off('SIGINT', interrupt).off('SIGTERM', terminate)
    const reason = new Error(`stopped by ${name}`)
    drain.abort(reason)
    stop.abort(reason)
  }
  const interrupt = () => {
    if (drain.signal.aborted) return end('SIGINT')
    say('finishing running jobs; another SIGINT stops them at once')
    drain.abort(new Error('stopped by SIGINT'))
  }
  const terminate = () => end('SIGTERM')
  process.on('SIGINT', interrupt).on('SIGTERM', terminate)
  onBrokenPipe(() => {
    process.exitCode = BROKEN_PIPE
    end('SIGPIPE')
  })
  return { drain: drain.signal, signal: stop.signal }
}
