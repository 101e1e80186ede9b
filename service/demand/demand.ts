/*
 * Generation on demand: which request may have which kernel made. A stranger must not start a thousand downloads, so
 * there are rules of which kernels, limits for each client, and one for all; and who has no token may have nothing
 * made, unless the service is for its own machine alone or its operator says so.
 *
 * What came of a kernel is remembered: a client that asks again for a build that was not among those made is told so,
 * instead of waiting again.
 */
import { LRUCache } from 'lru-cache'
import {
  type Catalog,
  encodeName,
  type KernelName,
  kernelPrefix,
  matchGlob,
  namesOf,
} from '../../storage/index.ts'
import type { Config } from '../config.ts'
import { ServiceError } from '../error.ts'
import { ANY } from '../kernel/lookup.ts'
import { toPublicFailure } from '../kernel/public-record.ts'
import { type BtfGenerator, type Generation, isEnded } from './generation.ts'

/** How long it is remembered what came of a kernel, in milliseconds. */
const REMEMBERED = 10 * 60 * 1000
const HOUR = 3600 * 1000
/** seconds */
const LONGEST_WAIT = 30
/** So many kernels, and clients, are remembered. */
const KEPT = 10_000

/** A generation that a request is to wait for. */
export interface Wait {
  id: string
  /** seconds after which to ask again: soon at first, then seldom */
  retryAfter: number
}

/** A client, as far as a generation depends on it. */
export interface Requester {
  /** the name that its generations are counted under */
  caller: string
  /** whether it may start a generation */
  mayGenerate: boolean
}

interface Begun {
  id: string
  caller: string
  /** as `Date.now()` has it */
  at: number
  readonly ended: Generation | undefined
}

export class Demand {
  readonly generator: BtfGenerator
  readonly #catalog: Catalog
  readonly #settings: Config
  /** by the prefix of the kernel's keys */
  readonly #begun = new LRUCache<string, Begun>({ max: KEPT })
  /** when each client had something begun, in the last hour */
  readonly #times = new LRUCache<string, number[]>({ max: KEPT, ttl: HOUR })
  /** by generation, until it is told */
  readonly #following = new Map<string, Promise<void>>()
  /** since the start */
  readonly counts = { begun: 0, published: 0, unknown: 0, failed: 0, refused: 0 }

  constructor(generator: BtfGenerator, catalog: Catalog, settings: Config) {
    this.generator = generator
    this.#catalog = catalog
    this.#settings = settings
  }

  /**
   * The generation that makes this kernel's BTF, begun where this request may have it begun. Undefined where there is
   * none, and asking again is of no use: none may be begun, no source offers the kernel, or it has just been made.
   * Errors: `busy`, `quota_exceeded`, and `generation_failed` with the failure.
   */
  request(kernel: KernelName, requester: Requester): Wait | undefined {
    if ([kernel.distro, kernel.version, kernel.arch].includes(ANY)) return undefined
    const key = kernelPrefix(namesOf(kernel).at(-1)!)
    const begun = this.#begun.get(key)
    if (begun) return waitFor(begun)
    if (!this.#mayBegin(kernel, requester)) return undefined
    return waitFor(this.#begin(key, kernel, requester.caller))
  }

  /** Waits until what an ended generation made is answered with. */
  async settled(id: string): Promise<void> {
    await this.#following.get(id)
  }

  #mayBegin(kernel: KernelName, { mayGenerate }: Requester): boolean {
    if (!mayGenerate) return false
    const { generateAllow, generateDeny } = this.#settings
    const { distro, version, arch, release } = namesOf(kernel).at(-1)!
    const name = [distro, version, arch, release].map(encodeName).join('/')
    const among = (globs: readonly string[]) => globs.some((glob) => matchGlob(glob, name))
    return !among(generateDeny) && (generateAllow.length === 0 || among(generateAllow))
  }

  /** Errors: `busy`, `quota_exceeded`. */
  #begin(key: string, kernel: KernelName, caller: string): Begun {
    const { generatePerClient, generatePerHour } = this.#settings
    const now = Date.now()
    const times = (this.#times.get(caller) ?? []).filter((time) => time > now - HOUR)
    if (times.length >= generatePerHour)
      throw this.#refused(
        'quota_exceeded',
        `quota exceeded: ${generatePerHour} generations per hour and client`,
        HOUR - (now - times[0]!),
      )
    if (this.#underWayOf(caller) >= generatePerClient)
      throw this.#refused(
        'quota_exceeded',
        `quota exceeded: ${generatePerClient} generations at once per client`,
      )
    const generation = this.generator.submit(kernel)
    if (!generation) throw this.#refused('busy', 'the generation queue is full')
    const begun: Begun = { id: generation.id, caller, at: now, ended: undefined }
    if (isEnded(generation)) return this.#end(key, begun, generation)
    this.#begun.set(key, begun)
    this.#times.set(caller, [...times, now])
    this.counts.begun++
    const following = this.#follow(key, begun)
      .catch(() => void this.#begun.delete(key))
      .finally(() => this.#following.delete(begun.id))
    this.#following.set(begun.id, following)
    return begun
  }

  #underWayOf(caller: string): number {
    return this.#begun
      .values()
      .reduce((sum, begun) => sum + (begun.caller === caller && !begun.ended ? 1 : 0), 0)
  }

  #refused(code: 'busy' | 'quota_exceeded', message: string, after?: number): ServiceError {
    this.counts.refused++
    const details = after === undefined ? {} : { retryAfter: Math.ceil(after / 1000) }
    return new ServiceError(code, message, { details })
  }

  /** Sees a generation to its end; what it made is in the catalog before anybody is told. */
  async #follow(key: string, begun: Begun): Promise<void> {
    let last = this.generator.get(begun.id)
    for await (const generation of this.generator.watch(begun.id)) last = generation
    if (!last || !isEnded(last)) return void this.#begun.delete(key)
    if (last.state === 'published') await this.#catalog.refresh(key).catch(() => {}) // it is in time
    this.#end(key, begun, last)
    this.counts[last.state as 'published' | 'unknown' | 'failed']++
  }

  #end(key: string, begun: Begun, ended: Generation): Begun {
    const remembered = { ...begun, ended }
    this.#begun.set(key, remembered, { ttl: REMEMBERED })
    return remembered
  }
}

/** Errors: `generation_failed` with the failure. */
function waitFor({ id, at, ended }: Begun): Wait | undefined {
  const seconds = Math.round((Date.now() - at) / 2000)
  if (!ended) return { id, retryAfter: Math.min(Math.max(seconds, 1), LONGEST_WAIT) }
  if (ended.state !== 'failed') return undefined
  const failure = toPublicFailure(ended.failure!)
  throw new ServiceError('generation_failed', `generating it failed: ${failure.message}`, {
    details: { failure },
  })
}
