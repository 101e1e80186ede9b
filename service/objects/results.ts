/*
 * Results for the BPF objects that clients upload. Threads compute them, once for each object and BTF, however many
 * clients ask. They have a cache of their own, so that they do not evict the BTF that agents need to start.
 *
 * Requests for one kernel (interactive) and for many kernels (bulk) have separate queues, so that a client that asks
 * for one kernel does not wait for thousands. Interactive work reads BTF through the body cache. Bulk work bypasses
 * that cache, since it reads each kernel only once. Work is aborted when no client waits for it.
 */
import { LRUCache } from 'lru-cache'
import { BtfError, type Dialect } from '../../bpf/index.ts'
import {
  getBlob,
  orPacked,
  packsOf,
  readBlob,
  type Store,
  StoreError,
  sha256Of,
} from '../../storage/index.ts'
import { type Body, BodyCache, type CacheEntry } from '../cache/body-cache.ts'
import type { Bodies } from '../cache/btf-bodies.ts'
import { Semaphore } from '../concurrency.ts'
import { type JsonText, jsonOf } from '../json.ts'
import { decidingFacts, type KernelFacts } from '../kernel/lookup.ts'
import { modulesFor } from '../threads/modules.ts'
import type { Pool } from '../threads/pool.ts'
import type { BtfInput, ObjectInput } from '../threads/worker.ts'
import { functionsIn } from './functions.ts'
import { warningsOf } from './warnings.ts'

/** An uploaded BPF object. */
export interface SentObject {
  name: string
  bytes: Uint8Array
  /** of the bytes, in hex */
  sha256: string
  /** what minimized BTF cannot give it */
  warnings: readonly string[]
  /** whether the results differ between kernels of other releases with the same BTF */
  usesRelease: boolean
  /** whether a check needs the names of the kernel's functions */
  usesFunctions: boolean
}

/** A class of work with its own queue and its own way to read BTF. */
export interface Priority {
  gate: Semaphore
  /** reads BTF by its digest: raw, or as a pack has it */
  read(sha256: string): Promise<BtfInput>
}

interface ObjectsOptions {
  store: Store
  bodies: Bodies
  pool: Pool
  /** size of the result cache, in bytes */
  size: number
}

/** Interactive tasks that may wait. Bulk tasks need no limit: bulk requests are limited, and each has few tasks. */
const MAX_WAITING = 256
/** Milliseconds that bulk work keeps BTF for the other objects of a request, and for kernels with the same BTF. */
const RECENT_TTL = 5000

/** BTF in the store: a kernel's, with that of its modules. */
export interface StoredBtf {
  /** of the raw bytes, in hex */
  sha256: string
  /** digests of the BTF of its modules */
  modules?: readonly string[]
  /** the names of its functions */
  symbols?: { readonly sha256: string } | undefined
  facts?: KernelFacts
}

export class Objects {
  readonly #pool: Pool
  readonly #store: Store
  readonly results: BodyCache<CacheEntry>
  /** for requests that name one kernel */
  readonly interactive: Priority
  /** for requests that cover many kernels */
  readonly bulk: Priority

  constructor({ store, bodies, pool, size }: ObjectsOptions) {
    this.#pool = pool
    this.#store = store
    this.results = new BodyCache<CacheEntry>(size)
    this.interactive = {
      gate: new Semaphore(pool.threads, MAX_WAITING),
      read: (sha256) => bodies.raw(sha256),
    }
    const recent = new LRUCache<string, Promise<BtfInput>>({
      max: pool.threads + 1,
      ttl: RECENT_TTL,
      ttlAutopurge: true,
    })
    this.bulk = {
      gate: new Semaphore(pool.threads, Number.POSITIVE_INFINITY),
      read: (sha256) => {
        const reading = recent.get(sha256) ?? readBtf(store, sha256)
        recent.set(sha256, reading)
        reading.catch(() => recent.delete(sha256))
        return reading
      },
    }
  }

  /** Kernels that a bulk request works on at a time: one more than there are threads, so that no thread is idle. */
  get width(): number {
    return this.#pool.threads + 1
  }

  /** Checks that the files are valid BPF objects. Errors: those of `openObject`, as `BtfError`; those of `Pool.run`. */
  async open(
    files: readonly { name: string; bytes: Uint8Array }[],
    signal: AbortSignal,
  ): Promise<SentObject[]> {
    const objects = files.map(({ name, bytes }) => {
      return { name, bytes, sha256: sha256Of(bytes) }
    })
    const make = (abandoned: AbortSignal) =>
      this.interactive.gate.run(async () => {
        const task = { objects: objects.map(({ bytes }) => bytes) }
        const opened = await this.#pool.run('open', task, abandoned)
        const found = opened.map((one) => {
          const { usesRelease, usesFunctions } = one
          return { warnings: warningsOf(one), usesRelease, usesFunctions }
        })
        return { bytes: Buffer.from(JSON.stringify(found)) }
      }, abandoned)
    const { bytes } = await this.results.body(`open ${digestsOf(objects)}`, make, signal)
    const found: Omit<SentObject, 'name' | 'bytes' | 'sha256'>[] = JSON.parse(bytes.toString())
    return objects.map((object, n) => ({ ...object, ...found[n]! }))
  }

  /**
   * Minimizes BTF for all objects, and returns it with its digest. Errors: those of `parseBtf`, `minimizeBtf` and
   * `toDialect`, as `BtfError`; those of `Pool.run` and of `priority.read`; the signal's reason.
   */
  async minimized(
    priority: Priority,
    stored: StoredBtf,
    objects: readonly SentObject[],
    signal: AbortSignal,
    dialect?: Dialect,
  ): Promise<Body> {
    const make = (abandoned: AbortSignal) =>
      priority.gate.run(async () => {
        const minimized = await this.#whole(priority, async (read) => {
          const task = await this.#taskOf(read, stored, objects, abandoned)
          return await this.#pool.run('minimize', { ...task, dialect }, abandoned)
        })
        return { bytes: Buffer.from(minimized) }
      }, abandoned)
    const key = `minimize ${dialect ?? ''} ${keyOf(stored)} ${digestsOf(objects)}`
    const { bytes } = await this.results.body(key, make, signal)
    return { bytes, sha256: sha256Of(bytes) }
  }

  /**
   * A C header of what objects use of BTF, with its digest. Errors: those of `parseBtf`, `mergeBtf` and `printHeader`, as
   * `BtfError`; those of `Pool.run` and of `priority.read`; the signal's reason.
   */
  async header(
    priority: Priority,
    stored: StoredBtf,
    objects: readonly SentObject[],
    signal: AbortSignal,
  ): Promise<Body> {
    const make = (abandoned: AbortSignal) =>
      priority.gate.run(async () => {
        const header = await this.#whole(priority, async (read) => {
          const task = await this.#taskOf(read, stored, objects, abandoned)
          return await this.#pool.run('header', task, abandoned)
        })
        return { bytes: Buffer.from(header) }
      }, abandoned)
    const key = `header ${keyOf(stored)} ${digestsOf(objects)}`
    const { bytes } = await this.results.body(key, make, signal)
    return { bytes, sha256: sha256Of(bytes) }
  }

  /**
   * Checks an object against BTF. Returns JSON: a `Check`, or `{ error: { code, message } }` with a `BtfError`. Errors:
   * those of `Pool.run` and of `priority.read`; the signal's reason.
   */
  async checked(
    priority: Priority,
    stored: StoredBtf,
    object: SentObject,
    signal: AbortSignal,
  ): Promise<JsonText> {
    const facts = decidingFacts(stored.facts ?? {}, object.usesRelease)
    const symbols = object.usesFunctions ? stored.symbols : undefined
    const make = (abandoned: AbortSignal) =>
      priority.gate.run(async () => {
        const input = { ...stored, facts }
        const [json] = await this.#whole(priority, async (read) => {
          const task = await this.#taskOf(read, input, [object], abandoned, true)
          const functions = await functionsIn(this.#store, symbols)
          return await this.#pool.run('check', { ...task, functions }, abandoned)
        }).catch((error) => {
          if (!(error instanceof BtfError)) throw error
          return [jsonOf({ error: { code: error.code, message: error.message } })]
        })
        return { bytes: Buffer.from(json!) }
      }, abandoned)
    const { bytes } = await this.results.body(
      `check ${keyOf(stored)} ${symbols?.sha256 ?? ''} ${JSON.stringify(facts)} ${object.sha256}`,
      make,
      signal,
    )
    return bytes.toString() as JsonText
  }

  /**
   * Runs a task. If a thread finds that its BTF is damaged, the task runs once more with BTF that was checked before, of
   * another pack. Errors: those of `task` and of `getBlob`.
   */
  async #whole<T>({ read }: Priority, task: (read: Priority['read']) => Promise<T>): Promise<T> {
    try {
      return await task(read)
    } catch (error) {
      if (!(error instanceof StoreError) || error.code !== 'digest_mismatch') throw error
      return await task((sha256) => getBlob(this.#store, sha256))
    }
  }

  async #taskOf(
    read: Priority['read'],
    { sha256, modules = [], facts = {} }: StoredBtf,
    sent: readonly SentObject[],
    signal: AbortSignal,
    symbols = false,
  ): Promise<ObjectInput> {
    const task = { objects: sent.map(({ bytes }) => bytes), btf: await read(sha256) }
    const query = { ...task, symbols }
    return { ...task, facts, modules: await modulesFor(this.#pool, query, modules, read, signal) }
  }
}

/** Reads the raw bytes of a blob, or the steps of a pack: a thread applies them. Errors: those of `getBlob`. */
async function readBtf(store: Store, sha256: string): Promise<BtfInput> {
  return await orPacked<BtfInput>(
    async () => (await readBlob(store, sha256)).raw,
    () => packsOf(store).steps(sha256),
  )
}

const keyOf = ({ sha256, modules = [] }: StoredBtf): string =>
  modules.length === 0 ? sha256 : `${sha256} ${sha256Of(modules.join())}`

const digestsOf = (objects: readonly Pick<SentObject, 'sha256'>[]): string =>
  objects.map(({ sha256 }) => sha256).join()
