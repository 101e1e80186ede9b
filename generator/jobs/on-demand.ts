/*
 * Generation on demand: somebody names a kernel, the mill finds its packages among what sources offer and has them done.
 * However many name the same kernel, it is done once: a generation's id follows from the kernel's names. What sources
 * offer is remembered a while, and so is what came of a kernel: a stranger who asks again and again costs nothing.
 */
import { LRUCache } from 'lru-cache'
import {
  Catalog,
  canonicalArch,
  type Failure,
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
  findPackages,
  type PackageSearch,
  type PackageSearchOptions,
} from '../indexes/available.ts'
import type { KernelPackage } from '../sources/source.ts'
import { type JobOptions, jobOf, jobOptionsOf } from './job.ts'
import { openQueue } from './open-queue.ts'
import { findPahole } from './pahole.ts'
import { knownRecord, plan } from './plan.ts'
import type { Queue, QueueOptions } from './queue.ts'

/** How long it is remembered, in milliseconds, what sources offer and what came of a kernel. */
const REMEMBERED = 10 * 60 * 1000
/** How many ended generations are remembered. */
const KEPT = 1000

export interface OnDemandOptions
  extends Omit<PackageSearchOptions, 'filter' | 'drain' | 'onEvent'>,
    Omit<QueueOptions, 'tool' | 'drain'>,
    JobOptions {
  /** signs the snapshot of the catalog */
  secretKey?: string
  /** how many kernels may be under way at once, waiting ones among them */
  limit?: number
  /** how long what sources offer and what came of a kernel is remembered, in milliseconds */
  remembered?: number
}

/** What becomes of a kernel that somebody named. It is plain data. */
export interface OnDemandGeneration {
  /** 32 hex digits: the same for all names of the same kernel */
  id: string
  kernel: KernelName
  /**
   * `searching` and `working` change yet; then it is `published` (its BTF is in the store), `unknown` (no source offers
   * it), or `failed`.
   */
  state: 'searching' | 'working' | 'published' | 'unknown' | 'failed'
  /** of each build under the kernel's name */
  packages: PackageState[]
  /** why it failed; of several failures the first */
  failure?: Failure
}

export interface PackageState {
  name: string
  version: string
  state: 'waiting' | 'working' | 'published' | 'failed'
  stage?: Stage
  /** bytes that were read, of so many where that is known */
  read: number
  size: number | undefined
}

/** One generation and those who watch it. */
interface Run {
  generation: OnDemandGeneration
  /** settles with the next change */
  changed: PromiseWithResolvers<void>
  /** when it ended, as `Date.now()` has it */
  ended: number | undefined
}

export class OnDemandGenerator {
  readonly #options: OnDemandOptions
  readonly #tool: Tool
  readonly #queue: Queue
  readonly #stop: AbortController
  /** by generation id; in the order in which they began */
  readonly #runs = new Map<string, Run>()
  /** what sources offer, by distribution, version and architecture */
  readonly #offers = new LRUCache<string, Promise<PackageSearch>>({ max: KEPT })
  #publishing: Promise<unknown> = Promise.resolve()

  private constructor(options: OnDemandOptions, tool: Tool, queue: Queue, stop: AbortController) {
    this.#options = options
    this.#tool = tool
    this.#queue = queue
    this.#stop = stop
  }

  /** Opens a mill with its queue. Errors: `pahole_missing`, those of `openQueue`. */
  static async open(options: OnDemandOptions): Promise<OnDemandGenerator> {
    const tool = await findPahole(options.signal)
    const stop = new AbortController()
    const signal = AbortSignal.any([stop.signal, ...(options.signal ? [options.signal] : [])])
    const all = { ...options, signal }
    return new OnDemandGenerator(all, tool, await openQueue({ ...all, tool }), stop)
  }

  /** How many generations are under way. */
  get underWay(): number {
    return this.#runs.values().reduce((sum, { ended }) => sum + (ended === undefined ? 1 : 0), 0)
  }

  /**
   * The generation of a kernel, which begins now unless it is under way, or failed or found nothing a moment ago.
   * Undefined where as many are under way as may be. Errors: `StoreError` `invalid_key` for what is no kernel's name.
   */
  submit(kernel: KernelName): OnDemandGeneration | undefined {
    const name = canonicalName(kernel)
    const id = sha256Of(kernelPrefix(name)).slice(0, 32)
    const known = this.#runs.get(id)
    if (known && !this.#mayBegin(known)) return structuredClone(known.generation)
    if (this.underWay >= (this.#options.limit ?? Number.POSITIVE_INFINITY)) return undefined
    const generation: OnDemandGeneration = { id, kernel: name, state: 'searching', packages: [] }
    const run: Run = { generation, changed: Promise.withResolvers(), ended: undefined }
    this.#runs.delete(id)
    this.#runs.set(id, run)
    this.#forget()
    void this.#generate(run, namesOf(kernel))
    return structuredClone(generation)
  }

  /** A generation that is under way, or ended not long ago, as it is now. */
  get(id: string): OnDemandGeneration | undefined {
    return structuredClone(this.#runs.get(id)?.generation)
  }

  /**
   * A generation as it is now, and after each change, until it has ended: the last one is of its end. Who is slow
   * misses what lies between. Nothing where there is no such generation; returns early when `signal` aborts.
   */
  async *watch(id: string, signal?: AbortSignal): AsyncGenerator<OnDemandGeneration> {
    const run = this.#runs.get(id)
    if (!run) return
    const aborted = Promise.withResolvers<void>()
    const abort = () => aborted.resolve()
    signal?.addEventListener('abort', abort, { once: true })
    try {
      while (!signal?.aborted) {
        const { changed } = run
        yield structuredClone(run.generation)
        if (run.ended !== undefined && run.changed === changed) return // that was the end
        await Promise.race([changed.promise, aborted.promise])
      }
    } finally {
      signal?.removeEventListener('abort', abort)
    }
  }

  /** The generation when it has ended; undefined where there is none. */
  async done(id: string): Promise<OnDemandGeneration | undefined> {
    let last: OnDemandGeneration | undefined
    for await (const generation of this.watch(id)) last = generation
    return last
  }

  /** Ends what is under way at once, and lets go of the queue. */
  async close(): Promise<void> {
    this.#stop.abort(new GeneratorError('aborted', 'the mill was closed'))
    await Promise.all([...this.#runs.keys()].map((id) => this.done(id)))
    await this.#publishing.catch(() => {})
    await this.#queue.close()
  }

  /** Whether it may begin anew. */
  #mayBegin({ generation, ended }: Run): boolean {
    if (ended === undefined) return false
    return generation.state === 'published' || Date.now() - ended > this.#remembered
  }

  get #remembered(): number {
    return this.#options.remembered ?? REMEMBERED
  }

  /** Forgets the oldest of those that ended. */
  #forget(): void {
    const ended = [...this.#runs].filter(([, run]) => run.ended !== undefined)
    for (const [id] of ended.slice(0, -KEPT)) this.#runs.delete(id)
  }

  async #generate(run: Run, names: readonly KernelName[]): Promise<void> {
    const { generation } = run
    try {
      const { packages, failures } = await this.#find(names)
      if (packages.length > 0) await this.#make(run, packages)
      else if (failures[0]) Object.assign(generation, { state: 'failed', failure: failures[0] })
      else generation.state = 'unknown'
    } catch (error) {
      Object.assign(generation, { state: 'failed', failure: failureOf(error, 1) })
    }
    run.ended = Date.now()
    tell(run)
  }

  /** The packages of a kernel under the first of its names that has any. */
  async #find(names: readonly KernelName[]): Promise<PackageSearch> {
    const failures: Failure[] = []
    for (const { distro, version, arch, release } of names) {
      const offers = await this.#offersOf({ distro, version, arch: canonicalArch(arch) })
      const packages = offers.packages.filter(({ kernel }) => kernel.release === release)
      if (packages.length > 0) return { packages, failures: [] }
      failures.push(...offers.failures)
    }
    return { packages: [], failures }
  }

  #offersOf(shelf: Omit<KernelName, 'release'>): Promise<PackageSearch> {
    const key = JSON.stringify(Object.values(shelf))
    const known = this.#offers.get(key)
    if (known) return known
    const found = findPackages({ ...this.#options, filter: shelf })
    this.#offers.set(key, found)
    found.then(
      ({ failures }) => {
        const ttl = failures.length > 0 ? this.#remembered / 10 : this.#remembered
        this.#offers.set(key, found, { ttl })
      },
      () => this.#offers.delete(key),
    )
    return found
  }

  async #make(run: Run, packages: readonly KernelPackage[]): Promise<void> {
    const { store, earlyStop = false, modules = [] } = this.#options
    const { generation } = run
    const { jobs } = await plan(packages, {
      store,
      fingerprint: this.#tool.fingerprint,
      earlyStop,
      modules,
    })
    generation.state = 'working'
    generation.packages = jobs.map(({ name, version, size }) => {
      return { name, version, state: 'waiting', read: 0, size }
    })
    tell(run)
    const options = jobOptionsOf(this.#options)
    const doing = jobs.map((job, i) =>
      this.#queue.run(jobOf(job, options), (event) => {
        Object.assign(generation.packages[i]!, changeOf(event))
        tell(run)
      }),
    )
    await Promise.allSettled(doing)
    const outcomes = await Promise.all(doing)
    if (outcomes.some((outcome) => outcome.state === 'published')) await this.#publish()
    const keys = packages.map(({ kernel, version }) => recordKey(kernel, version))
    const records = await Promise.all(keys.map((key) => knownRecord(store, key)))
    const served = records.some((record) => record?.btf)
    generation.state = served ? 'published' : 'failed'
    const [failure] = [
      ...outcomes.flatMap((outcome) => (outcome.state === 'failed' ? [outcome.failure] : [])),
      ...records.flatMap((record) => (record?.failure ? [record.failure] : [])),
    ]
    if (!served && failure) generation.failure = failure
  }

  /** Makes the snapshot say what the records say, one at a time. */
  #publish(): Promise<unknown> {
    const { store, secretKey } = this.#options
    this.#publishing = this.#publishing
      .catch(() => {})
      .then(() => Catalog.publish(store, secretKey))
    return this.#publishing
  }
}

/** The last of its names, which sources and the catalog have it under. */
function canonicalName(kernel: KernelName): KernelName {
  const { distro, version, arch, release } = namesOf(kernel).at(-1)!
  return { distro, version, arch: canonicalArch(arch), release }
}

/** Tells all who watch that something changed. */
function tell(run: Run): void {
  const { changed } = run
  run.changed = Promise.withResolvers()
  changed.resolve()
}

/** What an event changes of its package. */
function changeOf(event: JobEvent): Partial<PackageState> {
  switch (event.event) {
    case 'started':
      return { state: 'working' }
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
