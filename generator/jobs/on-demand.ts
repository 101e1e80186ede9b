/*
 * Generation on demand: a client names a kernel, and the generator finds its packages in the sources and runs their
 * jobs. Requests for the same kernel are a single flight: the id of a generation is derived from the kernel's name. The
 * packages of the sources are cached for a while, and so are results: a client that repeats a request costs nothing.
 */
import { LRUCache } from 'lru-cache'
import {
  Catalog,
  canonicalArch,
  type Failure,
  isUnusableRecord,
  type KernelName,
  kernelPrefix,
  namesOf,
  recordKey,
  sha256Of,
  type Tool,
} from '../../storage/index.ts'
import { GeneratorError } from '../error.ts'
import type { JobEvent, Stage } from '../event.ts'
import { failureOf } from '../failure.ts'
import {
  findNamedReleases,
  findPackages,
  type PackageSearch,
  type PackageSearchOptions,
} from '../indexes/available.ts'
import type { KernelPackage } from '../sources/source.ts'
import { type JobOptions, jobOf, jobOptionsOf, rolesFor } from './job.ts'
import { openQueue } from './open-queue.ts'
import { findPahole } from './pahole.ts'
import { knownRecord, plan } from './plan.ts'
import type { Queue, QueueOptions } from './queue.ts'

/** How long package searches and results are cached, in milliseconds. */
const CACHE_TTL = 10 * 60 * 1000
/** How many package searches, and how many ended generations, are cached. */
const CACHE_SIZE = 1000

export interface OnDemandOptions
  extends Omit<PackageSearchOptions, 'filter' | 'roles' | 'drain' | 'onEvent'>,
    Omit<QueueOptions, 'tool' | 'drain'>,
    JobOptions {
  /** minisign secret key: signs the snapshot of the catalog */
  secretKey?: string
  /** how many generations may be under way at once, including those that wait; default: no limit */
  limit?: number
  /** how long package searches and results are cached, in milliseconds; default: 10 minutes */
  cacheTtl?: number
}

/** The generation of one kernel, as plain data. */
export interface OnDemandGeneration {
  /** 32 hex digits: the same for all names of the same kernel */
  id: string
  kernel: KernelName
  /**
   * `searching` and `working` are under way; the end is `published` (the BTF is in the store), `unknown` (no source has
   * the kernel), or `failed`
   */
  state: 'searching' | 'working' | 'published' | 'unknown' | 'failed'
  /** one for each build of the kernel */
  packages: PackageState[]
  /** why it failed: the first failure, if there are several */
  failure?: Failure
}

export interface PackageState {
  name: string
  version: string
  state: 'waiting' | 'working' | 'published' | 'failed'
  stage?: Stage
  /** bytes that have been read */
  read: number
  /** bytes of the package */
  size: number | undefined
}

/** A generation with its watchers. */
interface GenerationFlight {
  generation: OnDemandGeneration
  /** resolves at the next change */
  changed: PromiseWithResolvers<void>
  /** milliseconds since the epoch */
  ended: number | undefined
}

export class OnDemandGenerator {
  readonly #options: OnDemandOptions
  readonly #tool: Tool
  readonly #queue: Queue
  readonly #stop: AbortController
  /** generations under way and ended ones, by id, the oldest first */
  readonly #flights = new Map<string, GenerationFlight>()
  /** package searches under way and their results, by distribution, version and architecture */
  readonly #searches = new LRUCache<string, Promise<Pick<PackageSearch, 'packages' | 'failures'>>>({
    max: CACHE_SIZE,
  })
  #publishing: Promise<unknown> = Promise.resolve()

  private constructor(options: OnDemandOptions, tool: Tool, queue: Queue, stop: AbortController) {
    this.#options = options
    this.#tool = tool
    this.#queue = queue
    this.#stop = stop
  }

  /** Opens a generator with its queue. Errors: `pahole_missing`; those of `openQueue`. */
  static async open(options: OnDemandOptions): Promise<OnDemandGenerator> {
    const tool = await findPahole(options.signal, options)
    const stop = new AbortController()
    const signal = AbortSignal.any([stop.signal, ...(options.signal ? [options.signal] : [])])
    const all = { ...options, signal }
    return new OnDemandGenerator(all, tool, await openQueue({ ...all, tool }), stop)
  }

  /** How many generations are under way. */
  get underWay(): number {
    const count = (sum: number, { ended }: GenerationFlight) => sum + (ended === undefined ? 1 : 0)
    return this.#flights.values().reduce(count, 0)
  }

  /**
   * Starts the generation of a kernel, or returns the one that is under way, or the cached failure. Returns undefined
   * if `limit` generations are under way. Errors: `StoreError` `invalid_key` for an invalid kernel name.
   */
  submit(kernel: KernelName): OnDemandGeneration | undefined {
    const name = canonicalName(kernel)
    const id = sha256Of(kernelPrefix(name)).slice(0, 32)
    const known = this.#flights.get(id)
    if (known && !this.#isStale(known)) return structuredClone(known.generation)
    if (this.underWay >= (this.#options.limit ?? Number.POSITIVE_INFINITY)) return undefined
    const generation: OnDemandGeneration = { id, kernel: name, state: 'searching', packages: [] }
    const flight: GenerationFlight = {
      generation,
      changed: Promise.withResolvers(),
      ended: undefined,
    }
    this.#flights.delete(id)
    this.#flights.set(id, flight)
    this.#evictOldest()
    void this.#generate(flight, namesOf(kernel))
    return structuredClone(generation)
  }

  /** The current state of a generation that is under way or cached. */
  get(id: string): OnDemandGeneration | undefined {
    return structuredClone(this.#flights.get(id)?.generation)
  }

  /**
   * Yields the current state of a generation, and its state after each change until it has ended. A slow reader misses
   * states in between, but never the last one. Yields nothing for an unknown id; returns early when `signal` aborts.
   */
  async *watch(id: string, signal?: AbortSignal): AsyncGenerator<OnDemandGeneration> {
    const flight = this.#flights.get(id)
    if (!flight) return
    const aborted = Promise.withResolvers<void>()
    const abort = () => aborted.resolve()
    signal?.addEventListener('abort', abort, { once: true })
    try {
      while (!signal?.aborted) {
        const { changed } = flight
        yield structuredClone(flight.generation)
        if (flight.ended !== undefined && flight.changed === changed) return // that was the last state
        await Promise.race([changed.promise, aborted.promise])
      }
    } finally {
      signal?.removeEventListener('abort', abort)
    }
  }

  /** Waits until a generation has ended, and returns it; undefined for an unknown id. */
  async done(id: string): Promise<OnDemandGeneration | undefined> {
    let last: OnDemandGeneration | undefined
    for await (const generation of this.watch(id)) last = generation
    return last
  }

  /** Aborts all generations, and closes the queue. */
  async close(): Promise<void> {
    this.#stop.abort(new GeneratorError('aborted', 'the generator was closed'))
    await Promise.all([...this.#flights.keys()].map((id) => this.done(id)))
    await this.#publishing.catch(() => {})
    await this.#queue.close()
  }

  /** Tells whether a kernel may be generated again. A published one may: another build may have appeared. */
  #isStale({ generation, ended }: GenerationFlight): boolean {
    if (ended === undefined) return false
    return generation.state === 'published' || Date.now() - ended > this.#cacheTtl
  }

  get #cacheTtl(): number {
    return this.#options.cacheTtl ?? CACHE_TTL
  }

  /** Keeps the cache of ended generations within its size. */
  #evictOldest(): void {
    const ended = [...this.#flights].filter(([, flight]) => flight.ended !== undefined)
    for (const [id] of ended.slice(0, -CACHE_SIZE)) this.#flights.delete(id)
  }

  async #generate(flight: GenerationFlight, names: readonly KernelName[]): Promise<void> {
    const { generation } = flight
    try {
      const { packages, failures } = await this.#findPackages(names)
      if (packages.length > 0) await this.#runJobs(flight, packages)
      else if (failures[0]) Object.assign(generation, { state: 'failed', failure: failures[0] })
      else generation.state = 'unknown'
    } catch (error) {
      Object.assign(generation, { state: 'failed', failure: failureOf(error, 1) })
    }
    flight.ended = Date.now()
    notify(flight)
  }

  /** Finds the packages of a kernel under the first of its names that has any. */
  async #findPackages(
    names: readonly KernelName[],
  ): Promise<Pick<PackageSearch, 'packages' | 'failures'>> {
    const failures: Failure[] = []
    for (const { distro, version, arch, release } of names) {
      const found = await this.#search({ distro, version, arch: canonicalArch(arch) })
      const packages = found.packages.filter(({ kernel }) => kernel.release === release)
      if (packages.length > 0) return { packages, failures: [] }
      failures.push(...found.failures)
    }
    const last = names.at(-1)!
    const filter = { ...last, arch: canonicalArch(last.arch) }
    const named = await findNamedReleases({ ...this.#options, filter })
    return named.packages.length > 0
      ? named
      : { packages: [], failures: [...failures, ...named.failures] }
  }

  /** Searches the sources: a single flight for each filter, with a cached result. A partial result is cached shorter. */
  #search(
    filter: Omit<KernelName, 'release'>,
  ): Promise<Pick<PackageSearch, 'packages' | 'failures'>> {
    const key = JSON.stringify(Object.values(filter))
    const cached = this.#searches.get(key)
    if (cached) return cached
    const search = findPackages({ ...this.#options, filter, roles: rolesFor(this.#options) })
    this.#searches.set(key, search)
    search.then(
      ({ failures }) => {
        const ttl = failures.length > 0 ? this.#cacheTtl / 10 : this.#cacheTtl
        this.#searches.set(key, search, { ttl })
      },
      () => this.#searches.delete(key),
    )
    return search
  }

  /** Runs the jobs that are due, and decides by the store's records whether the kernel has BTF now. */
  async #runJobs(flight: GenerationFlight, packages: readonly KernelPackage[]): Promise<void> {
    const { store, earlyStop = false, modules = [], inlinedCalls = false, from } = this.#options
    const { generation } = flight
    const { jobs } = await plan(packages, {
      store,
      fingerprint: this.#tool.fingerprint,
      earlyStop,
      modules,
      inlinedCalls,
      ...(from && { from }),
    })
    generation.state = 'working'
    generation.packages = jobs.map(({ name, version, size }) => {
      return { name, version, state: 'waiting', read: 0, size }
    })
    notify(flight)
    const options = jobOptionsOf(this.#options)
    const running = jobs.map((job, i) =>
      this.#queue.run(jobOf(job, options), (event) => {
        Object.assign(generation.packages[i]!, changeOf(event))
        notify(flight)
      }),
    )
    await Promise.allSettled(running)
    const outcomes = await Promise.all(running)
    if (outcomes.some((outcome) => outcome.state === 'published')) await this.#publish()
    const keys = packages.map(({ kernel, version }) => recordKey(kernel, version))
    const records = await Promise.all(
      keys.map((key) => knownRecord(store, key).catch(ignoreUnusable)),
    )
    const hasBtf = records.some((record) => record?.btf)
    generation.state = hasBtf ? 'published' : 'failed'
    const [failure] = [
      ...outcomes.flatMap((outcome) => (outcome.state === 'failed' ? [outcome.failure] : [])),
      ...records.flatMap((record) => (record?.failure ? [record.failure] : [])),
    ]
    if (!hasBtf && failure) generation.failure = failure
  }

  /** Publishes the catalog's snapshot. Calls run one after another. */
  #publish(): Promise<unknown> {
    const { store, secretKey } = this.#options
    this.#publishing = this.#publishing
      .catch(() => {})
      .then(() => Catalog.publish(store, secretKey))
    return this.#publishing
  }
}

/** For `catch`: a record that this version cannot read tells nothing about the other builds. */
function ignoreUnusable(error: unknown): undefined {
  if (!isUnusableRecord(error)) throw error
}

/** The last of a kernel's names: the one that sources and the catalog use. */
function canonicalName(kernel: KernelName): KernelName {
  const { distro, version, arch, release } = namesOf(kernel).at(-1)!
  return { distro, version, arch: canonicalArch(arch), release }
}

/** Wakes all watchers of a generation. */
function notify(flight: GenerationFlight): void {
  const { changed } = flight
  flight.changed = Promise.withResolvers()
  changed.resolve()
}

/** The part of a package's state that an event changes. */
function changeOf(event: JobEvent): Partial<PackageState> {
  switch (event.event) {
    case 'started':
      return { name: event.package, size: event.size, state: 'working', read: 0 }
    case 'stage':
      return { stage: event.stage }
    case 'progress':
      return { read: event.read }
    case 'published':
      return { state: 'published' }
    case 'failed':
      return { state: 'failed' }
    default:
      return event satisfies never
  }
}
