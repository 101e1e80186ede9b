/*
 * What pages show of the types in one kernel's BTF: a type with its layout, names that contain a text, and the difference
 * between two kernels. Threads compute it, and the results share the cache and the queue of requests for one kernel.
 */
import type { BtfDiff, TypeName } from '../../bpf/index.ts'
import type { Pool } from '../threads/pool.ts'
import type { TypesOfName } from '../threads/worker.ts'
import type { Objects } from './results.ts'

export class BtfViews {
  readonly #objects: Objects
  readonly #pool: Pool

  constructor(objects: Objects, pool: Pool) {
    this.#objects = objects
    this.#pool = pool
  }

  /**
   * The types and functions with a name; undefined if there are none. `sha256` is the digest of the raw BTF. Errors:
   * those of `parseBtf` and `listType`, as `BtfError`; those of `Pool.run` and `Bodies.raw`; the signal's reason.
   */
  async named(sha256: string, name: string, signal: AbortSignal): Promise<TypesOfName | undefined> {
    return await this.#json(`describe ${sha256} ${name}`, signal, async (abandoned) => {
      const btf = await this.#objects.interactive.read(sha256)
      return await this.#pool.run('describe', { btf, name }, abandoned)
    })
  }

  /** The types and functions whose name contains a text, best first. Errors: those of `named`. */
  async search(
    sha256: string,
    text: string,
    limit: number,
    signal: AbortSignal,
  ): Promise<TypeName[]> {
    const key = `search ${sha256} ${limit} ${text}`
    const found = await this.#json<TypeName[]>(key, signal, async (abandoned) => {
      const btf = await this.#objects.interactive.read(sha256)
      return await this.#pool.run('search', { btf, text, limit }, abandoned)
    })
    return found ?? []
  }

  /** The difference between two BTFs. Errors: those of `named` and `diffBtf`. */
  async diff(before: string, after: string, signal: AbortSignal): Promise<BtfDiff> {
    const diff = await this.#json<BtfDiff>(`diff ${before} ${after}`, signal, async (abandoned) => {
      const read = (sha256: string) => this.#objects.interactive.read(sha256)
      const task = { before: await read(before), after: await read(after) }
      return await this.#pool.run('diff', task, abandoned)
    })
    return diff!
  }

  async #json<T>(
    key: string,
    signal: AbortSignal,
    work: (abandoned: AbortSignal) => Promise<string | undefined>,
  ): Promise<T | undefined> {
    const { results, interactive } = this.#objects
    const make = (abandoned: AbortSignal) =>
      interactive.gate.run(async () => {
        return { bytes: Buffer.from((await work(abandoned)) ?? '') }
      }, abandoned)
    const { bytes } = await results.body(key, make, signal)
    return bytes.length === 0 ? undefined : JSON.parse(bytes.toString())
  }
}
