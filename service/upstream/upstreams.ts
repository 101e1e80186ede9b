/*
 * Upstreams: what is not here is asked of other services and archives, once however many clients ask, checked, kept, and
 * then served like everything else.
 *
 * A request waits for `upstreamWait` seconds, and is then told to come again, while the work goes on. Upstreams are
 * asked in their order; one that has not answered within `HEDGE` does not hold up the next. Outcomes are remembered, so a
 * client that repeats a request for a missing kernel costs nothing. An upstream that is away is not asked for a while.
 *
 * Loops between services end by the header `via` (RFC 9110, 7.6.3), in which each service that asks upstream names itself:
 * nobody asks further for a request that has passed through itself or through `MAX_HOPS` services, and nobody asks an
 * upstream that has asked. In a larger circle, services may wait for each other if clients ask all of them at once; that
 * ends with `upstreamWait`.
 */
import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { LRUCache } from 'lru-cache'
import {
  ANY,
  type BuildRecord,
  Catalog,
  encodeName,
  type KernelName,
  kernelPrefix,
  listArchives,
  matchGlob,
  namesOf,
  type Store,
} from '../../storage/index.ts'
import { Semaphore, SingleFlight } from '../concurrency.ts'
import type { Config } from '../config.ts'
import { ServiceError } from '../error.ts'
import type { Pool } from '../threads/pool.ts'
import { parseUpstream, type UpstreamAddress } from '../upstream-address.ts'
import { BtfhubUpstream, DatadogUpstream } from './archive.ts'
import { CircuitBreaker } from './breaker.ts'
import { BtfmillUpstream } from './btfmill.ts'
import { UpstreamError } from './error.ts'
import { keepSent } from './keep.ts'
import { OpenAnolisUpstream } from './openanolis.ts'
import { probeKind } from './probe.ts'
import type { UpstreamAsk, UpstreamSource, WantedBtf } from './source.ts'

/** Services that a request may pass through. */
export const MAX_HOPS = 3
/** Milliseconds after which the next upstream is asked too. */
const HEDGE = 1500
/** Milliseconds for which a failure is remembered. */
const FAILURE_TTL = 15_000
/** The most outcomes that are remembered. */
const MAX_OUTCOMES = 10_000
/** Kernels that may wait to be asked for. */
const MAX_WAITING = 1000
/** Seconds until a client asks again for what is under way. */
const RETRY_AFTER = 2
/** Milliseconds between two publications of the catalog. */
const PUBLISH_INTERVAL = 30_000
const PUBLISH_DELAY = 1000

/** Why an upstream gave nothing, as clients see it. */
export interface UpstreamFailure {
  /** of the upstream, without credentials */
  url: string
  code: UpstreamError['code']
  message: string
}

export type UpstreamOutcome =
  | { kind: 'taken' }
  | { kind: 'none' }
  /** seconds */
  | { kind: 'pending'; retryAfter: number }
  | { kind: 'failed'; failures: UpstreamFailure[] }

const NONE: UpstreamOutcome = { kind: 'none' }

interface Upstream {
  address: UpstreamAddress
  breaker: CircuitBreaker
  /** undefined until its kind is known */
  source: UpstreamSource | undefined
  /** its id in `via`, once it has told it */
  service?: string
}

export interface UpstreamsOptions {
  store: Store
  catalog: Catalog
  pool: Pool
  settings: Config
  /** signs the snapshot of the catalog */
  secretKey?: string | undefined
  onError: (error: unknown) => void
}

export class Upstreams {
  /** by which this service is found in `via` */
  readonly id = randomBytes(8).toString('hex')
  readonly #options: UpstreamsOptions
  readonly #upstreams: readonly Upstream[]
  readonly #flights = new SingleFlight<UpstreamOutcome>()
  readonly #gate: Semaphore
  readonly #outcomes = new LRUCache<string, UpstreamOutcome>({ max: MAX_OUTCOMES })
  readonly #stop = new AbortController()
  #publishing: Promise<unknown> = Promise.resolve()
  /** records whose archives were kept, and that the manifest does not list yet */
  #unlisted: BuildRecord[] = []
  #timer: NodeJS.Timeout | undefined
  #publishedAt = 0
  /** since the start */
  readonly counts = { asked: 0, taken: 0, missing: 0, failed: 0 }

  constructor(options: UpstreamsOptions) {
    const { settings } = options
    this.#options = options
    this.#gate = new Semaphore(settings.upstreamRequests, MAX_WAITING)
    this.#upstreams = settings.upstream.map((text) => {
      const address = parseUpstream(text)
      if (!address) throw new ServiceError('invalid_request', 'invalid upstream') // config has checked it
      const breaker = new CircuitBreaker(address.base)
      const upstream: Upstream = { address, breaker, source: undefined }
      if (address.kind) upstream.source = this.#sourceOf(upstream, address.kind)
      return upstream
    })
  }

  /** The number of upstreams that are not asked now, since they are away. */
  get away(): number {
    return this.#upstreams.filter(({ breaker }) => breaker.isOpen).length
  }

  /** Tells whether a request has come through a service that asks upstream. */
  static hasHops(via: string | undefined): boolean {
    return hopsIn(via).length > 0
  }

  /**
   * Asks the upstreams for BTF that is not here; with `taken`, a lookup may find it now. `via` is the header of the client's
   * request. Errors: `busy` if too many kernels are asked for.
   */
  async request(wanted: WantedBtf, via: string | undefined): Promise<UpstreamOutcome> {
    const hops = hopsIn(via)
    if (hops.includes(this.id) || hops.length >= MAX_HOPS || !this.#mayAsk(wanted)) return NONE
    const asked = this.#upstreams.filter(({ service }) => !service || !hops.includes(service))
    if (asked.length === 0) return NONE
    const key = keyOf(wanted, asked)
    const remembered = this.#outcomes.get(key)
    if (remembered) return remembered
    if (this.#flights.has(key) && this.#mayWaitForEachOther(hops, asked))
      return { kind: 'pending', retryAfter: 1 }
    const path = [...hops, this.id].map((hop) => `1.1 btfmill-${hop}`).join(', ')
    const flight = this.#flights.run(key, () => this.#askOnce(key, asked, wanted, path))
    return await withinTime(flight, this.#options.settings.upstreamWait * 1000)
  }

  /**
   * Tells whether the service that asks may be an upstream that is asked for the same. Services learn each other's ids
   * by their first answer. Until then only the one with the lower id waits.
   */
  #mayWaitForEachOther(hops: readonly string[], asked: readonly Upstream[]): boolean {
    const isUnknown = ({ service, address: { kind = 'btfmill' } }: Upstream) =>
      kind === 'btfmill' && service === undefined
    return hops.some((hop) => hop > this.id) && asked.some(isUnknown)
  }

  /** Ends what is under way, and publishes what was taken over. */
  async close(): Promise<void> {
    this.#stop.abort(new UpstreamError('unreachable', 'the service stops'))
    const isDue = this.#timer !== undefined
    clearTimeout(this.#timer)
    if (isDue) this.#publish()
    await this.#publishing
  }

  #mayAsk({ kernel }: WantedBtf): boolean {
    if (!kernel) return true // its name is looked at when it is known
    const { upstreamAllow } = this.#options.settings
    const isWild = [kernel.distro, kernel.version, kernel.arch].includes(ANY)
    // as is a name with wildcards
    return isWild && upstreamAllow.length > 0 ? true : this.#allows(kernel)
  }

  #allows(kernel: KernelName): boolean {
    const { upstreamAllow, upstreamDeny } = this.#options.settings
    const { distro, version, arch, release } = namesOf(kernel).at(-1)!
    const name = [distro, version, arch, release].map(encodeName).join('/')
    const matches = (globs: readonly string[]) => globs.some((glob) => matchGlob(glob, name))
    return !matches(upstreamDeny) && (upstreamAllow.length === 0 || matches(upstreamAllow))
  }

  async #askOnce(
    key: string,
    asked: readonly Upstream[],
    wanted: WantedBtf,
    via: string,
  ): Promise<UpstreamOutcome> {
    const outcome = await this.#gate.run(async () => {
      this.counts.asked++
      return await this.#askAll(asked, wanted, via)
    }, this.#stop.signal)
    this.#outcomes.set(key, outcome, { ttl: this.#ttlOf(outcome) })
    switch (outcome.kind) {
      case 'taken':
        this.counts.taken++
        break
      case 'none':
        this.counts.missing++
        break
      case 'failed':
        this.counts.failed++
    }
    return outcome
  }

  /** Milliseconds for which an outcome is remembered. */
  #ttlOf(outcome: UpstreamOutcome): number {
    switch (outcome.kind) {
      case 'pending':
        return outcome.retryAfter * 1000
      case 'failed':
        return FAILURE_TTL
      default:
        return this.#options.settings.upstreamMisses * 1000
    }
  }

  /** Asks in order, until one has the kernel. */
  async #askAll(
    asked: readonly Upstream[],
    wanted: WantedBtf,
    via: string,
  ): Promise<UpstreamOutcome> {
    const ended = new AbortController()
    const failures: UpstreamFailure[] = []
    let pending: number | undefined
    const found = Promise.withResolvers<true>()
    const attempts = new Set<Promise<void>>()
    const start = (upstream: Upstream) => {
      const attempt = this.#askOne(upstream, wanted, via, ended.signal).then(
        (taken) => {
          if (taken) found.resolve(true)
        },
        (error: unknown) => {
          if (ended.signal.aborted) return
          const { code, message, retryAfter } = error as UpstreamError
          if (code === 'pending') pending = Math.max(retryAfter ?? RETRY_AFTER, pending ?? 0)
          else failures.push({ url: upstream.address.base, code, message })
        },
      )
      attempts.add(attempt)
      return attempt
    }
    try {
      for (const [n, upstream] of asked.entries()) {
        const isLast = n === asked.length - 1
        const attempt = start(upstream)
        const next = isLast
          ? Promise.all(attempts)
          : Promise.race([attempt, sleep(HEDGE, undefined, { ref: false })])
        if ((await Promise.race([found.promise, next])) === true) return { kind: 'taken' }
      }
      // an attempt that ends as the last may have found it
      if (await Promise.race([found.promise, Promise.resolve(false)])) return { kind: 'taken' }
      if (pending !== undefined) return { kind: 'pending', retryAfter: pending }
      return failures.length > 0 ? { kind: 'failed', failures } : NONE
    } finally {
      ended.abort()
    }
  }

  /** Asks one upstream; returns whether it had the kernel. Errors: `UpstreamError`. */
  async #askOne(
    upstream: Upstream,
    wanted: WantedBtf,
    via: string,
    ended: AbortSignal,
  ): Promise<boolean> {
    const { store, pool, settings, catalog } = this.#options
    const timeout = AbortSignal.timeout(settings.upstreamTimeout * 1000)
    const signal = AbortSignal.any([ended, timeout, this.#stop.signal])
    try {
      const sent = await upstream.breaker.run(async () => {
        const ask: UpstreamAsk = { ...wanted, via, signal }
        try {
          return await (await this.#open(upstream, signal)).find(ask)
        } catch (error) {
          // nobody wants the answer any more, which says nothing of the upstream
          throw ended.aborted || this.#stop.signal.aborted ? ended.reason : error
        }
      })
      const prefixes = new Set<string>()
      const allows = (name: KernelName) => this.#allows(name)
      const onArchive = (record: BuildRecord) => void this.#unlisted.push(record)
      for (const one of sent)
        for (const { kernel: name } of await keepSent(one, {
          ...{ store, pool, allows, onArchive, signal },
        }))
          prefixes.add(kernelPrefix(name))
      for (const prefix of prefixes) await catalog.refresh(prefix)
      if (prefixes.size > 0) this.#publishSoon()
      return prefixes.size > 0
    } catch (error) {
      if (error instanceof UpstreamError || !signal.aborted) throw this.#reported(error)
      const { base } = upstream.address
      throw new UpstreamError('timeout', `${base}: no complete answer in time`, { cause: error })
    }
  }

  /** Makes of any error one that can be told; a bug is reported. */
  #reported(error: unknown): UpstreamError {
    if (error instanceof UpstreamError) return error
    this.#options.onError(error)
    return new UpstreamError('not_kept', 'internal error', { cause: error })
  }

  async #open(upstream: Upstream, signal: AbortSignal): Promise<UpstreamSource> {
    if (upstream.source) return upstream.source
    const kind = await probeKind(upstream.address, signal)
    upstream.source ??= this.#sourceOf(upstream, kind)
    return upstream.source
  }

  #sourceOf(upstream: Upstream, kind: NonNullable<UpstreamAddress['kind']>): UpstreamSource {
    const { address } = upstream
    switch (kind) {
      case 'btfmill':
        return new BtfmillUpstream(address, (id) => {
          upstream.service = id
        })
      case 'btfhub':
        return new BtfhubUpstream(address)
      case 'datadog':
        return new DatadogUpstream(address)
      case 'openanolis':
        return new OpenAnolisUpstream(address)
      default:
        return kind satisfies never
    }
  }

  /** Publishes the catalog's snapshot soon, and not too often: others start from it. */
  #publishSoon(): void {
    if (this.#timer) return
    const due = this.#publishedAt + PUBLISH_INTERVAL - Date.now()
    this.#timer = setTimeout(() => this.#publish(), Math.max(due, PUBLISH_DELAY)).unref()
  }

  #publish(): void {
    const { store, secretKey, onError } = this.#options
    this.#timer = undefined
    this.#publishedAt = Date.now()
    this.#publishing = this.#publishing
      .then(async () => {
        await Catalog.publish(store, secretKey)
        await listArchives(store, this.#unlisted.splice(0), secretKey)
      })
      .catch((error) => onError(error))
  }
}

/** The ids of the services that a request has passed through. */
function hopsIn(via: string | undefined): string[] {
  return [...(via ?? '').matchAll(/\bbtfmill-([0-9a-f]{16})\b/g)].map(([, id]) => id!)
}

/** The outcome of work, or `pending` if it takes longer than `limit` milliseconds. */
async function withinTime(work: Promise<UpstreamOutcome>, limit: number): Promise<UpstreamOutcome> {
  const late = Promise.withResolvers<UpstreamOutcome>()
  const timer = setTimeout(() => late.resolve({ kind: 'pending', retryAfter: RETRY_AFTER }), limit)
  work.catch(() => {}) // it may fail when nobody waits any more
  try {
    return await Promise.race([work, late.promise])
  } finally {
    clearTimeout(timer)
  }
}

function keyOf({ kernel, choice }: WantedBtf, asked: readonly Upstream[]): string {
  const name = kernel && namesOf(kernel).at(-1)!
  const { build = '', unameVersion = '', like = '', codename = '' } = choice
  const urls = asked.map(({ address }) => address.base)
  const hints = [build.toLowerCase(), unameVersion, like, codename]
  return JSON.stringify([name?.distro, name?.version, name?.arch, name?.release, hints, urls])
}
