/*
 * Generation on demand: decides which request may start the generation of which kernel's BTF. A stranger must not start
 * a thousand downloads. Allow and deny rules select the kernels; quotas limit each client; the generator's queue limits
 * all clients together. Without a token a client starts nothing, unless the service listens on localhost only or its
 * operator allows it.
 *
 * Outcomes are remembered: a client that requests a build which the generation did not produce gets `unknown_kernel` at
 * once, and does not wait again.
 */
import { LRUCache } from 'lru-cache'
import {
  ANY,
  type Catalog,
  encodeName,
  type KernelName,
  kernelPrefix,
  matchGlob,
  namesOf,
} from '../../storage/index.ts'
import type { Config } from '../config.ts'
import { ServiceError } from '../error.ts'
import { toPublicFailure } from '../kernel/public-record.ts'
import { type BtfGenerator, type Generation, isEnded } from './generation.ts'

/** milliseconds for which the outcome of a generation is remembered */
const OUTCOME_TTL = 10 * 60 * 1000
const HOUR = 3600 * 1000
/** seconds; the upper bound of the pause between two requests for a generation under way */
const MAX_RETRY_AFTER = 30
/** seconds until a client that has its share of generations under way may try again */
const CONCURRENCY_RETRY_AFTER = 5
/** the bound of remembered kernels, and of remembered clients */
const MAX_ENTRIES = 10_000

/** A generation that a request waits for. */
export interface Wait {
  id: string
  /** seconds until the next request; grows with the age of the generation */
  retryAfter: number
}

/** The client of a request. */
export interface Requester {
  /** the name for which its generations are counted */
  caller: string
  /** whether it may start a generation */
  mayGenerate: boolean
}

interface TrackedGeneration {
  id: string
  caller: string
  /** `Date.now()` at the start */
  startedAt: number
  /** undefined while it is under way */
  readonly outcome: Generation | undefined
}

export class Demand {
  readonly generator: BtfGenerator
  readonly #catalog: Catalog
  readonly #settings: Config
  /** key: the prefix of the kernel's keys in the store */
  readonly #tracked = new LRUCache<string, TrackedGeneration>({ max: MAX_ENTRIES })
  /** times at which each client started generations, within the last hour */
  readonly #starts = new LRUCache<string, number[]>({ max: MAX_ENTRIES, ttl: HOUR })
  /** key: the generation's id; resolves when its outcome is remembered */
  readonly #watchers = new Map<string, Promise<void>>()
  /** since the start of the process */
  readonly counts = { started: 0, published: 0, unknown: 0, failed: 0, refused: 0 }

  constructor(generator: BtfGenerator, catalog: Catalog, settings: Config) {
    this.generator = generator
    this.#catalog = catalog
    this.#settings = settings
  }

  /**
   * Returns the generation of this kernel's BTF, and starts it if the requester may do so. Returns undefined if a retry
   * is of no use: the requester may not start it, no source has the kernel, or the generation has just ended.
   * Errors: `busy`, `quota_exceeded`; `generation_failed` with `details.failure`.
   */
  request(kernel: KernelName, requester: Requester): Wait | undefined {
    if ([kernel.distro, kernel.version, kernel.arch].includes(ANY)) return undefined
    const key = kernelPrefix(namesOf(kernel).at(-1)!)
    const tracked = this.#tracked.get(key)
    if (tracked) return waitFor(tracked)
    if (!this.#mayStart(kernel, requester)) return undefined
    return waitFor(this.#start(key, kernel, requester.caller))
  }

  /** The generations that requests have started and that are under way, oldest first. */
  current(): Generation[] {
    return [...this.#tracked.values()]
      .filter(({ outcome }) => outcome === undefined)
      .sort((a, b) => a.startedAt - b.startedAt)
      .flatMap(({ id }) => this.generator.get(id) ?? [])
  }

  /** Resolves when requests are answered with the outcome of an ended generation. */
  async settled(id: string): Promise<void> {
    await this.#watchers.get(id)
  }

  #mayStart(kernel: KernelName, { mayGenerate }: Requester): boolean {
    if (!mayGenerate) return false
    const { generateAllow, generateDeny } = this.#settings
    const { distro, version, arch, release } = namesOf(kernel).at(-1)!
    const name = [distro, version, arch, release].map(encodeName).join('/')
    const matches = (globs: readonly string[]) => globs.some((glob) => matchGlob(glob, name))
    return !matches(generateDeny) && (generateAllow.length === 0 || matches(generateAllow))
  }

  /** Errors: `busy`, `quota_exceeded`. */
  #start(key: string, kernel: KernelName, caller: string): TrackedGeneration {
    const { generatePerClient, generatePerHour } = this.#settings
    const now = Date.now()
    const starts = (this.#starts.get(caller) ?? []).filter((time) => time > now - HOUR)
    if (starts.length >= generatePerHour)
      throw this.#refused(
        'quota_exceeded',
        `quota exceeded: ${generatePerHour} generations per hour and client`,
        Math.ceil((HOUR - (now - starts[0]!)) / 1000),
      )
    if (this.#underWayFor(caller) >= generatePerClient)
      throw this.#refused(
        'quota_exceeded',
        `quota exceeded: ${generatePerClient} generations at once per client`,
        CONCURRENCY_RETRY_AFTER,
      )
    const generation = this.generator.submit(kernel)
    if (!generation) throw this.#refused('busy', 'the generation queue is full; retry later')
    const tracked = { id: generation.id, caller, startedAt: now, outcome: undefined }
    if (isEnded(generation)) return this.#remember(key, tracked, generation)
    this.#tracked.set(key, tracked)
    this.#starts.set(caller, [...starts, now])
    this.counts.started++
    const watcher = this.#watch(key, tracked)
      .catch(() => void this.#tracked.delete(key))
      .finally(() => this.#watchers.delete(tracked.id))
    this.#watchers.set(tracked.id, watcher)
    return tracked
  }

  #underWayFor(caller: string): number {
    return this.#tracked
      .values()
      .reduce((sum, tracked) => sum + (tracked.caller === caller && !tracked.outcome ? 1 : 0), 0)
  }

  /** `retryAfter` is in seconds. */
  #refused(code: 'busy' | 'quota_exceeded', message: string, retryAfter?: number): ServiceError {
    this.counts.refused++
    return new ServiceError(code, message, {
      details: retryAfter === undefined ? {} : { retryAfter },
    })
  }

  /** Follows a generation to its end. The catalog has the new BTF before any client is told. */
  async #watch(key: string, tracked: TrackedGeneration): Promise<void> {
    let last = this.generator.get(tracked.id)
    for await (const generation of this.generator.watch(tracked.id)) last = generation
    if (!last || !isEnded(last)) return void this.#tracked.delete(key)
    // a failed refresh only delays the BTF until the next one
    if (last.state === 'published') await this.#catalog.refresh(key).catch(() => {})
    this.#remember(key, tracked, last)
    this.counts[last.state as 'published' | 'unknown' | 'failed']++
  }

  #remember(key: string, tracked: TrackedGeneration, outcome: Generation): TrackedGeneration {
    const remembered = { ...tracked, outcome }
    this.#tracked.set(key, remembered, { ttl: OUTCOME_TTL })
    return remembered
  }
}

/** Errors: `generation_failed` with `details.failure`. */
function waitFor({ id, startedAt, outcome }: TrackedGeneration): Wait | undefined {
  const seconds = Math.round((Date.now() - startedAt) / 2000)
  if (!outcome) return { id, retryAfter: Math.min(Math.max(seconds, 1), MAX_RETRY_AFTER) }
  if (outcome.state !== 'failed') return undefined
  const failure = toPublicFailure(outcome.failure!)
  throw new ServiceError('generation_failed', `the generation failed: ${failure.message}`, {
    details: { failure },
  })
}
