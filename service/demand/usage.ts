/*
 * Usage: which kernels clients got, kept in the store by month, so that `prune` knows what nobody asks for. Each kernel is
 * written once a month. A store that cannot be written is no reason to fail: then nothing is counted.
 */
import { addUsage, kernelPrefix, monthOf, type Store } from '../../storage/index.ts'
import { parseName } from '../kernel/name.ts'

/** Milliseconds between two writes to the store. */
const INTERVAL = 3600_000

export interface UsageOptions {
  store: Store
  /** called once if the store cannot be written */
  onError?: (error: unknown) => void
  now?: () => Date
}

export class Usage {
  readonly #store: Store
  readonly #onError: (error: unknown) => void
  readonly #now: () => Date
  readonly #timer: NodeJS.Timeout
  #month: string
  /** names of the kernels that the document of the month has, or will have at the next write */
  #counted = new Set<string>()
  #waiting = new Set<string>()
  #failed = false

  constructor({ store, onError = () => {}, now = () => new Date() }: UsageOptions) {
    this.#store = store
    this.#onError = onError
    this.#now = now
    this.#month = monthOf(now())
    this.#timer = setInterval(() => void this.write(), INTERVAL).unref()
  }

  /** Notes that a client got a kernel of the catalog, by its name: `DISTRO/VERSION/ARCH/RELEASE`. */
  count(name: string): void {
    if (this.#counted.has(name)) return
    this.#counted.add(name)
    this.#waiting.add(name)
  }

  /** Writes what was counted since the last write. Never rejects. */
  async write(): Promise<void> {
    const [month, waiting] = [this.#month, this.#waiting]
    this.#waiting = new Set()
    this.#month = monthOf(this.#now())
    // kernels that were counted around midnight of the last day may count for either month
    if (this.#month !== month) this.#counted = new Set()
    if (waiting.size === 0) return
    try {
      const kernels = [...waiting].flatMap((name) => parseName(name) ?? [])
      await addUsage(this.#store, month, new Set(kernels.map(kernelPrefix)))
      this.#failed = false
    } catch (error) {
      for (const name of waiting) this.#waiting.add(name)
      if (!this.#failed) this.#onError(error)
      this.#failed = true
    }
  }

  /** Writes what is left, and ends. */
  async close(): Promise<void> {
    clearInterval(this.#timer)
    await this.write()
  }
}
