/* What a run has come to so far: the numbers of its events, for one line above the bars. */
import type { GenerateEvent } from '../../generator/index.ts'

export class Tally {
  readonly #started = performance.now()
  /** the source that was read last */
  #source = ''
  #found = 0
  #planned: number | undefined
  #there = 0
  #published = 0
  #failed = 0
  /** bytes that each job has read */
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
      ...(this.#source ? [`${this.#source}: ${this.#found} packages found`] : []),
      this.#planned === undefined ? `${done} done` : `${done} of ${this.#planned} done`,
      ...(this.#failed > 0 ? [`${this.#failed} failed`] : []),
      ...(this.#there > 0 ? [`${this.#there} there already`] : []),
      `${(read / 1e6).toFixed(0)} MB read`,
      clock((performance.now() - this.#started) / 1000),
    ]
    return parts.join(', ')
  }
}

/** Seconds as `1:05`, `1:01:05`. */
export function clock(seconds: number): string {
  const whole = Math.floor(seconds)
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60]
  const two = (value: number) => String(value).padStart(2, '0')
  return hours > 0 ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`
}
