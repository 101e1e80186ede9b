/*
 * What is found out of the BPF objects that strangers send: worked out in threads, once for each object and each BTF
 * however many ask, and kept in a memory of its own, since it must not push out what agents start from. Work for one
 * kernel takes its BTF from the hot bodies; work for many passes these by, since it goes through each kernel once. The
 * two wait apart, so that who asks for one is not behind who asks for thousands. Work that nobody waits for any more is
 * ended.
 */
import { LRUCache } from 'lru-cache'
import { BtfError } from '../../bpf/index.ts'
import { getBlob, type Store, sha256Of } from '../../storage/index.ts'
import { type Body, BodyCache, type CacheEntry } from '../cache/body-cache.ts'
import type { Bodies } from '../cache/btf-bodies.ts'
import { Semaphore } from '../concurrency.ts'
import { type JsonText, jsonOf } from '../json.ts'
import type { Pool } from '../threads/pool.ts'

/** A BPF object, and the digest of its bytes, in hex. */
export interface SentObject {
  name: string
  bytes: Uint8Array
  sha256: string
}

/** How BTF is come by, and who waits for whom. */
export interface Priority {
  gate: Semaphore
  read(sha256: string): Promise<Buffer>
}

interface ObjectsOptions {
  store: Store
  bodies: Bodies
  pool: Pool
  /** bytes of results that are kept */
  size: number
}

/** So many wait for work on one kernel. Of those who ask for many, each has a few under way, and they are counted. */
const WAITING = 256
/** Milliseconds that BTF stays at hand for the other objects of a request, and for kernels that have the same. */
const AT_HAND = 5000

export class Objects {
  readonly #pool: Pool
  readonly results: BodyCache<CacheEntry>
  /** for one kernel, and for many */
  readonly one: Priority
  readonly many: Priority

  constructor({ store, bodies, pool, size }: ObjectsOptions) {
    this.#pool = pool
    this.results = new BodyCache<CacheEntry>(size)
    this.one = {
      gate: new Semaphore(pool.threads, WAITING),
      read: (sha256) => bodies.raw(sha256),
    }
    const atHand = new LRUCache<string, Promise<Buffer>>({
      ...{ max: pool.threads + 1, ttl: AT_HAND, ttlAutopurge: true },
    })
    this.many = {
      gate: new Semaphore(pool.threads, Number.POSITIVE_INFINITY),
      read: (sha256) => {
        const reading = atHand.get(sha256) ?? getBlob(store, sha256)
        atHand.set(sha256, reading)
        reading.catch(() => atHand.delete(sha256))
        return reading
      },
    }
  }

  /** How many kernels a request for many has under way: one more than is worked on, so that no thread has to wait. */
  get width(): number {
    return this.#pool.threads + 1
  }

  /** Sees that objects can be worked on at all. Errors: those of `openObject`, as `BtfError`; those of `Pool.run`. */
  async open(
    files: readonly { name: string; bytes: Uint8Array }[],
    signal: AbortSignal,
  ): Promise<SentObject[]> {
    const objects = files.map(({ name, bytes }) => ({ name, bytes, sha256: sha256Of(bytes) }))
    const make = (nobody: AbortSignal) =>
      this.one.gate.run(async () => {
        await this.#pool.run('open', { objects: objects.map(({ bytes }) => bytes) }, nobody)
        return { bytes: Buffer.alloc(0) }
      }, nobody)
    await this.results.body(`open ${digestsOf(objects)}`, make, signal)
    return objects
  }

  /**
   * Of some BTF what the objects need, and its digest. Errors: those of `parseBtf` and `minimizeBtf`, as `BtfError`;
   * those of `Pool.run` and of reading; the signal's reason.
   */
  async minimized(
    lane: Priority,
    sha256: string,
    objects: readonly SentObject[],
    signal: AbortSignal,
  ): Promise<Body> {
    const make = (nobody: AbortSignal) =>
      lane.gate.run(async () => {
        const btf = await lane.read(sha256)
        const task = { objects: objects.map(({ bytes }) => bytes), btf }
        const least = Buffer.from(await this.#pool.run('minimize', task, nobody))
        return { bytes: least }
      }, nobody)
    const key = `minimize ${sha256} ${digestsOf(objects)}`
    const { bytes } = await this.results.body(key, make, signal)
    return { bytes, sha256: sha256Of(bytes) }
  }

  /**
   * A `Check` of an object against some BTF, or `{ error: { code, message } }` where the two do not go together, as JSON.
   * Errors: those of `Pool.run` and of reading; the signal's reason.
   */
  async checked(
    lane: Priority,
    sha256: string,
    object: SentObject,
    signal: AbortSignal,
  ): Promise<JsonText> {
    const make = (nobody: AbortSignal) =>
      lane.gate.run(async () => {
        const btf = await lane.read(sha256)
        const [json] = await this.#pool
          .run('check', { objects: [object.bytes], btf }, nobody)
          .catch((error) => {
            if (!(error instanceof BtfError)) throw error
            return [jsonOf({ error: { code: error.code, message: error.message } })]
          })
        return { bytes: Buffer.from(json!) }
      }, nobody)
    const { bytes } = await this.results.body(`check ${sha256} ${object.sha256}`, make, signal)
    return bytes.toString() as JsonText
  }
}

const digestsOf = (objects: readonly SentObject[]): string =>
  objects.map(({ sha256 }) => sha256).join()
