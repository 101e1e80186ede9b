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
import { readInput } from '../threads/btf-input.ts'
import { modulesFor, readModules } from '../threads/modules.ts'
import type { Pool } from '../threads/pool.ts'
import { type FindAlike, SharedAnswers, sharingInputs } from '../threads/shared-answers.ts'
import type { BtfInput, ObjectInput, TracedAnswer } from '../threads/worker.ts'
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
  /** reads BTF by its digest, and its size in bytes, where it is known: raw, or as the store has it */
  read(sha256: string, size?: number): Promise<BtfInput>
}

/** A result in the cache, with what tells which other kernels have it; see `TracedAnswer`. */
interface Result extends CacheEntry {
  traced?: Omit<TracedAnswer<unknown>, 'value'> & { hasValue: boolean }
}

/** Results that kernels of one request share. */
export type Sharing = SharedAnswers<CacheEntry>

/** Bytes of results that a request keeps for kernels that share them. `service/memory.ts` counts on it. */
const SHARED = 4 * 1024 * 1024

interface ObjectsOptions {
  store: Store
  bodies: Bodies
  pool: Pool
  /** size of the result cache, in bytes */
  size: number
  /** tells which kernels have the same results; undefined without an index */
  findAlike?: FindAlike | undefined
}

/** Interactive tasks that may wait, of one client half of them. Bulk tasks need no limit: bulk requests are limited, and each has few tasks. */
const MAX_WAITING = 256
/** Milliseconds that bulk work keeps BTF for the other objects of a request, and for kernels with the same BTF. */
const RECENT_TTL = 5000

/** BTF in the store: a kernel's, with that of its modules. */
export interface StoredBtf {
  /** of the raw bytes, in hex */
  sha256: string
  /** of the raw bytes, where it is known */
  size?: number
  /** digests of the BTF of its modules */
  modules?: readonly string[]
  /** the names of its functions */
  symbols?: { readonly sha256: string } | undefined
  facts?: KernelFacts
}

export class Objects {
  readonly #pool: Pool
  readonly #store: Store
  readonly #findAlike: FindAlike | undefined
  readonly results: BodyCache<Result>
  /** for requests that name one kernel */
  readonly interactive: Priority
  /** for requests that cover many kernels */
  readonly bulk: Priority

  constructor({ store, bodies, pool, size, findAlike }: ObjectsOptions) {
    this.#pool = pool
    this.#store = store
    this.#findAlike = findAlike
    this.results = new BodyCache<Result>(size)
    this.interactive = {
      gate: new Semaphore(pool.threads, MAX_WAITING, MAX_WAITING / 2),
      read: (sha256) => bodies.raw(sha256),
    }
    const recent = new LRUCache<string, Promise<BtfInput>>({
      max: pool.threads + 1,
      ttl: RECENT_TTL,
      ttlAutopurge: true,
    })
    this.bulk = {
      gate: new Semaphore(pool.threads, Number.POSITIVE_INFINITY),
      read: (sha256, size) => {
        const reading = recent.get(sha256) ?? readBtf(store, sha256, size)
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

  /** What a request for many kernels needs so that they share results; undefined without an index. */
  sharing(): Sharing | undefined {
    const find = this.#findAlike
    return find && new SharedAnswers<CacheEntry>(find, SHARED, ({ bytes }) => bytes.length)
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
    { signal, sharing, dialect }: ResultOptions & { dialect?: Dialect | undefined },
  ): Promise<Body> {
    const question: Question<Uint8Array> = {
      ...{ priority, objects, symbols: false, key: `minimize ${dialect ?? ''}` },
      alone: (task, abandoned) => this.#pool.run('minimize', { ...task, dialect }, abandoned),
      traced: (task, abandoned) =>
        this.#pool.run('tracedMinimize', { ...task, dialect }, abandoned),
      encode: Buffer.from,
    }
    const { bytes } = await this.#result(question, stored, signal, sharing)
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
    const question: Question<Uint8Array> = {
      ...{ priority, objects, symbols: false, key: 'header' },
      alone: (task, abandoned) => this.#pool.run('header', task, abandoned),
      encode: Buffer.from,
    }
    const { bytes } = await this.#result(question, stored, signal, undefined)
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
    { signal, sharing }: ResultOptions,
  ): Promise<JsonText> {
    const facts = decidingFacts(stored.facts ?? {}, object.usesRelease)
    const symbols = object.usesFunctions ? stored.symbols : undefined
    const withFunctions = async <T>(task: T) => {
      return { ...task, facts, functions: await functionsIn(this.#store, symbols) }
    }
    const { facts: shared, version } = sharingInputs(facts)
    const question: Question<JsonText[]> = {
      ...{ priority, objects: [object], symbols: true, version },
      key: `check ${symbols?.sha256 ?? ''} ${JSON.stringify(shared)}`,
      alone: async (task, abandoned) =>
        await this.#pool.run('check', await withFunctions(task), abandoned),
      traced: async (task, abandoned) =>
        await this.#pool.run('tracedCheck', await withFunctions(task), abandoned),
      encode: ([json]) => Buffer.from(json!),
      refuse: ({ code, message }) => [jsonOf({ error: { code, message } })],
    }
    const { bytes } = await this.#result(question, stored, signal, sharing)
    return bytes.toString() as JsonText
  }

  /** The result for a kernel: its own, or one that it shares with others. */
  async #result<T>(
    question: Question<T>,
    stored: StoredBtf,
    signal: AbortSignal,
    sharing: Sharing | undefined,
  ): Promise<CacheEntry> {
    const { sha256, size, modules = [] } = stored
    const { version } = question
    const inputs = `${question.key} ${digestsOf(question.objects)}`
    const alone = (needsModules?: true) =>
      this.#made(`${inputs} ${version} ${keyOf(stored)}`, question, signal, async (abandoned) => {
        const value = await this.#alone(question, stored, abandoned, needsModules)
        return { bytes: question.encode(value) }
      })
    const { traced: ask } = question
    if (!ask || !sharing || size === undefined) return await alone()
    const hasModules = modules.length > 0
    return await sharing.answer(
      { sha256, size, inputs, version, hasModules },
      {
        traced: async (btf) => {
          const key = `traced ${inputs} ${version} ${btf.sha256} ${hasModules}`
          const result = await this.#made(key, question, signal, async (abandoned) => {
            const { value, ...traced } = await this.#whole(question.priority, async (read) => {
              const task = { ...(await inputOf(read, question, btf)), hasModules }
              return await ask(task, abandoned)
            })
            const hasValue = value !== undefined
            const bytes = hasValue ? question.encode(value) : Buffer.alloc(0)
            return { bytes, traced: { ...traced, hasValue } }
          })
          const { keys, hasValue = true, ...others } = result.traced ?? NOT_SHARED
          return { value: hasValue ? result : undefined, keys, ...others }
        },
        withModules: () => alone(true),
      },
    )
  }

  /** A result of the cache, made where it is missing. An error that a question makes a result of is one. */
  #made<T>(
    key: string,
    { priority, refuse, encode }: Question<T>,
    signal: AbortSignal,
    make: (abandoned: AbortSignal) => Promise<Result>,
  ): Promise<Result> {
    const making = (abandoned: AbortSignal) =>
      priority.gate.run(
        () =>
          make(abandoned).catch((error) => {
            if (!refuse || !(error instanceof BtfError)) throw error
            return { bytes: encode(refuse(error)) }
          }),
        abandoned,
      )
    return this.results.body(key, making, signal)
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

  async #alone<T>(
    question: Question<T>,
    { modules = [], ...stored }: StoredBtf,
    abandoned: AbortSignal,
    needsModules?: true,
  ): Promise<T> {
    const { symbols, priority } = question
    return await this.#whole(priority, async (read) => {
      const task = await inputOf(read, question, stored)
      const query = { ...task, symbols }
      const readModule = (sha256: string) => read(sha256)
      const opened = needsModules
        ? await readModules(modules, readModule)
        : await modulesFor(this.#pool, query, modules, readModule, abandoned)
      return await question.alone({ ...task, modules: opened }, abandoned)
    })
  }
}

const inputOf = async <T>(
  read: Priority['read'],
  { objects }: Question<T>,
  { sha256, size }: Pick<StoredBtf, 'sha256' | 'size'>,
): Promise<ObjectInput> => ({
  objects: objects.map(({ bytes }) => bytes),
  btf: await read(sha256, size),
})

/** An error as a result. */
const NOT_SHARED = { keys: undefined, needsModules: false, usesVersion: false, hasValue: true }

/** How a result is made. */
interface ResultOptions {
  signal: AbortSignal
  /** of the request, if it covers many kernels */
  sharing?: Sharing | undefined
}

/** What is asked about objects, whatever the kernel. */
interface Question<T> {
  priority: Priority
  objects: readonly SentObject[]
  /** whether modules are needed for symbols, too */
  symbols: boolean
  /** tells questions about the same objects apart, but for the version of the kernel */
  key: string
  /** see `SharingKernel` */
  version?: number | undefined
  alone(task: ObjectInput, abandoned: AbortSignal): Promise<T>
  /** for answers that kernels may share */
  traced?(
    task: Omit<ObjectInput, 'modules'> & { hasModules: boolean },
    abandoned: AbortSignal,
  ): Promise<TracedAnswer<T>>
  encode(value: T): Buffer
  /** makes a result of an error */
  refuse?(error: BtfError): T
}

/** Reads BTF for a thread, which unpacks it; without its size the raw bytes of a blob, or the steps of a pack. Errors: those of `getBlob`. */
async function readBtf(store: Store, sha256: string, size?: number): Promise<BtfInput> {
  if (size !== undefined) return await readInput(store, { sha256, size })
  return await orPacked<BtfInput>(
    async () => (await readBlob(store, sha256)).raw,
    () => packsOf(store).steps(sha256),
  )
}

const keyOf = ({ sha256, modules = [] }: StoredBtf): string =>
  modules.length === 0 ? sha256 : `${sha256} ${sha256Of(modules.join())}`

const digestsOf = (objects: readonly Pick<SentObject, 'sha256'>[]): string =>
  objects.map(({ sha256 }) => sha256).join()
