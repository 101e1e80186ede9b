/*
 * Generation on demand: which request may have which kernel made. A stranger must not start a thousand downloads, so
 * there are rules of which kernels, limits for each client, and one for all; and who has no token may have nothing
 * made, unless the service is for its own machine alone or its operator says so.
 *
 * What came of a kernel is remembered: a client that asks again for a build that was not among those made is told so,
 * instead of waiting again.
 */
import type { FastifyRequest } from 'fastify'
import { LRUCache } from 'lru-cache'
import {
  type Catalog,
  encodeName,
  type KernelName,
  kernelPrefix,
  matchGlob,
  namesOf,
} from '../../storage/index.ts'
import { isLocal, parseListen } from '../address.ts'
import type { Config } from '../config.ts'
import { ServiceError } from '../error.ts'
import { mayDo } from '../http/auth.ts'
import { callerOf, isLocalCaller } from '../http/requester.ts'
import { ANY } from '../kernel/lookup.ts'
import { shownFailure } from '../kernel/public-record.ts'
import { type Generation, type Generator, isEnded } from './generation.ts'

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

interface Begun {
  id: string
  caller: string
  /** as `Date.now()` has it */
  at: number
  readonly ended: Generation | undefined
}

export class Demand {
  readonly generator: Generator
  readonly #catalog: Catalog
  readonly #settings: Config
  /** whether only this machine reaches the service */
  readonly #local: boolean
  /** by the prefix of the kernel's keys */
  readonly #begun = new LRUCache<string, Begun>({ max: KEPT })
  /** when each client had something begun, in the last hour */
  readonly #times = new LRUCache<string, number[]>({ max: KEPT, ttl: HOUR })
  /** by generation, until it is told */
  readonly #following = new Map<string, Promise<void>>()
  /** since the start */
  readonly counts = { begun: 0, published: 0, unknown: 0, failed: 0, refused: 0 }

  constructor(generator: Generator, catalog: Catalog, settings: Config) {
    this.generator = generator
    this.#catalog = catalog
    this.#settings = settings
    const address = parseListen(settings.listen)
    this.#local = address !== undefined && isLocal(address)
  }

  /**
   * The generation that makes this kernel's BTF, begun where this request may have it begun. Undefined where there is
   * none, and asking again is of no use: none may be begun, no source offers the kernel, or it has just been made.
   * Errors: `busy`, and `failed` with the failure.
   */
  request(kernel: KernelName, request: FastifyRequest): Wait | undefined {
    if ([kernel.distro, kernel.version, kernel.arch].includes(ANY)) return undefined
    const key = kernelPrefix(namesOf(kernel).at(-1)!)
    const begun = this.#begun.get(key)
    if (begun) return waitFor(begun)
    if (!this.#mayBegin(kernel, request)) return undefined
    return waitFor(this.#begin(key, kernel, callerOf(request)))
  }

  /** Waits until what an ended generation made is answered with. */
  async settled(id: string): Promise<void> {
    await this.#following.get(id)
  }

  #mayBegin(kernel: KernelName, request: FastifyRequest): boolean {
    const { generateAnonymous, generateAllow, generateDeny } = this.#settings
    const { holder } = request
    const anonymous =
      generateAnonymous === 'always' ||
      (generateAnonymous === 'local' && this.#local && isLocalCaller(request))
    if (!anonymous && !(holder && mayDo(holder, 'generate'))) return false
    const { distro, version, arch, release } = namesOf(kernel).at(-1)!
    const name = [distro, version, arch, release].map(encodeName).join('/')
    const among = (globs: readonly string[]) => globs.some((glob) => matchGlob(glob, name))
    return !among(generateDeny) && (generateAllow.length === 0 || among(generateAllow))
  }

  /** Errors: `busy`. */
  #begin(key: string, kernel: KernelName, caller: string): Begun {
    const { generatePerClient, generatePerHour } = this.#settings
    const now = Date.now()
    const times = (this.#times.get(caller) ?? []).filter((time) => time > now - HOUR)
    if (times.length >= generatePerHour)
      throw this.#refused('this client has had its share of this hour', HOUR - (now - times[0]!))
    if (this.#underWayOf(caller) >= generatePerClient)
      throw this.#refused('this client has as much under way as it may')
    const generation = this.generator.submit(kernel)
    if (!generation) throw this.#refused('as much is under way as may be')
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

  #refused(why: string, after?: number): ServiceError {
    this.counts.refused++
    const details = after === undefined ? {} : { retryAfter: Math.ceil(after / 1000) }
    return new ServiceError('busy', `nothing is begun: ${why}`, { details })
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

/** Errors: `failed` with the failure. */
function waitFor({ id, at, ended }: Begun): Wait | undefined {
  const seconds = Math.round((Date.now() - at) / 2000)
  if (!ended) return { id, retryAfter: Math.min(Math.max(seconds, 1), LONGEST_WAIT) }
  if (ended.state !== 'failed') return undefined
  const failure = shownFailure(ended.failure!)
  throw new ServiceError('failed', `generating it failed: ${failure.message}`, {
    details: { failure },
  })
}
