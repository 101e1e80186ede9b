/*
 * Checks of an object over many kernels that take longer than a request should. A run goes on while people look at its
 * page, which shows how far it is and loads again by itself; a run that nobody looks at is aborted.
 */
import { setTimeout as sleep } from 'node:timers/promises'

/** Milliseconds without a look after which a run is aborted. */
const ABANDONED = 30_000

export interface RunProgress {
  /** kernels that are done, of all */
  done: number
  total: number
}

interface Run<T> {
  readonly progress: RunProgress
  readonly result: Promise<T>
  readonly abort: AbortController
  timer: NodeJS.Timeout
}

/** Works on one key at most once at a time. */
export class CheckRuns<T> {
  readonly #runs = new Map<string, Run<T>>()

  /**
   * Waits for the result of a run, at most so many milliseconds; starts it if it is not under way. Returns the result, or
   * how far the run is. Errors: those of `work`; the first caller after it failed gets them.
   */
  async look(
    key: string,
    patience: number,
    work: (progress: RunProgress, signal: AbortSignal) => Promise<T>,
  ): Promise<{ result: T } | { progress: RunProgress }> {
    const run = this.#runs.get(key) ?? this.#start(key, work)
    run.timer.refresh()
    const waited = new AbortController()
    try {
      const late = sleep(patience, undefined, { signal: waited.signal }).then(
        () => ({ progress: { ...run.progress } }),
        () => ({ progress: { ...run.progress } }),
      )
      const answer = await Promise.race([run.result.then((result) => ({ result })), late])
      if ('result' in answer) this.#end(key, run)
      return answer
    } catch (error) {
      this.#end(key, run)
      throw error
    } finally {
      waited.abort()
    }
  }

  /** Aborts all runs. */
  close(): void {
    for (const [key, run] of this.#runs) this.#drop(key, run)
  }

  #start(key: string, work: (progress: RunProgress, signal: AbortSignal) => Promise<T>): Run<T> {
    const abort = new AbortController()
    const progress = { done: 0, total: 0 }
    const result = work(progress, abort.signal)
    result.catch(() => {}) // whoever looks next gets the error
    const timer = setTimeout(() => this.#drop(key, run), ABANDONED).unref()
    const run: Run<T> = { progress, result, abort, timer }
    this.#runs.set(key, run)
    return run
  }

  #drop(key: string, run: Run<T>): void {
    run.abort.abort(new Error('nobody waits for this check'))
    this.#end(key, run)
  }

  #end(key: string, run: Run<T>): void {
    clearTimeout(run.timer)
    if (this.#runs.get(key) === run) this.#runs.delete(key)
  }
}
