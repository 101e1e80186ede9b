/*
 * How people and supervisors end a run. SIGINT once: nothing new is begun, and what runs is finished; twice, or SIGTERM:
 * all ends at once, and nothing half is left; once more: the process goes as it is.
 */
export interface Stop {
  /** begin nothing new */
  drain: AbortSignal
  /** end at once */
  signal: AbortSignal
}

/** Listens from now on; `say` tells people what the first SIGINT does. */
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
    say('finishing what runs; SIGINT once more ends it at once')
    drain.abort(new Error('stopped by SIGINT'))
  }
  const terminate = () => end('SIGTERM')
  process.on('SIGINT', interrupt).on('SIGTERM', terminate)
  return { drain: drain.signal, signal: stop.signal }
}
