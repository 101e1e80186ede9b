/*
 * Work once for kernels that have the same answer about some objects. A thread that answers for a kernel tells the names
 * by which it has read types (`TypeTrace`); the index of the store tells which kernels have the same types of these names.
 * These have the same answer, so it is exactly the one that each would get by itself. A kernel that the index does not
 * have, and an answer that no other kernel can have, cost no more than without sharing.
 *
 * While a kernel is worked on, those wait for it that probably have the same answer: the names of the last answer tell.
 */
import { LRUCache } from 'lru-cache'
import { versionOf } from '../../bpf/index.ts'
import type { KernelFacts } from '../kernel/lookup.ts'
import type { TracedAnswer } from './worker.ts'

/** The digests of all BTF in which names with these keys have the same types as in one. Errors count as none. */
export type FindAlike = (sha256: string, keys: readonly number[]) => Promise<readonly string[]>

/** A kernel, as far as its answer depends on it. */
export interface SharingKernel {
  /** of its BTF */
  sha256: string
  /** bytes of its BTF */
  size: number
  /** what else the answer depends on */
  inputs: string
  /** its version, for answers that depend on it (`versionOf`); `inputs` says whether it has one */
  version?: number | undefined
  /** whether it has BTF of modules */
  hasModules: boolean
}

/** The facts of a kernel that its answers depend on, but for its version. */
export function sharingInputs({ release, ...facts }: KernelFacts): {
  facts: KernelFacts & { hasVersion: boolean }
  version: number | undefined
} {
  const version = release === undefined ? undefined : versionOf(release)
  return { facts: { ...facts, hasVersion: version !== undefined }, version }
}

/** The BTF that is read in place of all that have the same types of some names. */
export type SharedBtf = Pick<SharingKernel, 'sha256' | 'size'>

/** How a kernel gets an answer of its own. */
export interface AnswerWork<T> {
  /** asks vmlinux alone: this BTF, which has the types of the kernel's that were read before */
  traced(btf: SharedBtf): Promise<TracedAnswer<T>>
  /** asks vmlinux and its modules */
  withModules(): Promise<T>
}

/** Names that are looked up in the index: usual objects read some hundred. An answer by more of them is not shared. */
const MAX_KEYS = 4096

/** The memory of an answer in addition to its bytes. */
const OVERHEAD = 256

interface KnownAnswer {
  /** number of the answer; undefined if each kernel needs its modules */
  number: number | undefined
  needsModules: boolean
}

/** Kernels that probably have one answer: those with these digests, of one version if there is one; without digests, all. */
interface Guess {
  digests?: ReadonlySet<string>
  version?: number | undefined
}

interface RunningWork {
  guess: Promise<Guess>
  /** never rejects */
  done: Promise<unknown>
}

/** What the last shared answer depended on. */
type LastAnswer = Pick<TracedAnswer<unknown>, 'keys' | 'usesVersion'>

const NOTHING: LastAnswer = { keys: undefined, usesVersion: false }

/** The answers to one question about some objects. */
export class SharedAnswers<T extends object> {
  readonly #find: FindAlike
  readonly #known = new Map<string, KnownAnswer>()
  readonly #values: LRUCache<number, T>
  #count = 0
  /** by kernel: the BTF to read if its answer depends on its version, and is known for others only */
  readonly #btfs = new Map<string, SharedBtf>()
  readonly #running = new Map<string, Set<RunningWork>>()
  /** by inputs */
  readonly #last = new Map<string, LastAnswer>()
  /** kernels that are like one whose answer is not shared: they do not wait for each other */
  readonly #alone = new Set<string>()

  /** Keeps answers of `size` bytes for other kernels; `sizeOf` gives the bytes of one. */
  constructor(find: FindAlike, size: number, sizeOf: (value: T) => number) {
    this.#find = async (sha256, keys) =>
      keys.length > MAX_KEYS ? [] : await find(sha256, keys).catch(() => [])
    this.#values = new LRUCache({
      maxSize: size,
      sizeCalculation: (value) => sizeOf(value) + OVERHEAD,
    })
  }

  /** The answer for a kernel. Errors: those of its work. */
  async answer(kernel: SharingKernel, work: AnswerWork<T>): Promise<T> {
    for (;;) {
      const known = this.#known.get(keyOf(kernel, false)) ?? this.#known.get(keyOf(kernel, true))
      if (known?.needsModules && kernel.hasModules) return await work.withModules()
      const value = known?.number === undefined ? undefined : this.#values.get(known.number)
      if (value !== undefined) return value
      let before: RunningWork | undefined
      const isAlone = this.#alone.has(keyOf(kernel, false))
      for (const running of isAlone ? [] : (this.#running.get(kernel.inputs) ?? []))
        if (covers(await running.guess, kernel)) before ??= running
      // nothing is awaited in between, so of two kernels one sees the other
      if (!before) return await this.#run(kernel, work)
      await before.done
    }
  }

  async #run(kernel: SharingKernel, work: AnswerWork<T>): Promise<T> {
    const { inputs } = kernel
    const all = this.#running.get(inputs) ?? new Set()
    this.#running.set(inputs, all)
    const guess = this.#guess(kernel)
    const tracing = this.#trace(kernel, work, guess)
    const end = () => void all.delete(running)
    const running = { guess, done: tracing.then(end, end) }
    all.add(running)
    const { value } = await tracing
    return value ?? (await work.withModules())
  }

  async #trace(
    kernel: SharingKernel,
    work: AnswerWork<T>,
    guess: Promise<Guess>,
  ): Promise<TracedAnswer<T>> {
    const { inputs } = kernel
    let keys: readonly number[] | undefined
    try {
      const other = this.#btfs.get(keyOf(kernel, false))
      const answer =
        (other && (await this.#asked(kernel, other, work))) ??
        (await this.#asked(kernel, kernel, work))!
      keys = answer.keys
      if (keys) this.#last.set(inputs, { keys, usesVersion: answer.usesVersion })
      return answer
    } finally {
      if (!keys) {
        if (!this.#last.has(inputs)) this.#last.set(inputs, NOTHING)
        for (const sha256 of (await guess).digests ?? [])
          this.#alone.add(keyOf({ ...kernel, sha256 }, false))
      }
    }
  }

  /**
   * The answer for a kernel by a BTF, noted for all kernels that share it. Undefined if the BTF is another one, and has
   * other types of a name that was read this time.
   */
  async #asked(
    kernel: SharingKernel,
    { sha256: read, size }: SharedBtf,
    work: AnswerWork<T>,
  ): Promise<TracedAnswer<T> | undefined> {
    const answer = await work.traced({ sha256: read, size })
    const alike = answer.keys ? await this.#find(read, answer.keys) : []
    if (read !== kernel.sha256 && !alike.includes(kernel.sha256)) return undefined
    this.#share(kernel, { sha256: read, size }, answer, alike)
    return answer
  }

  #share(
    kernel: SharingKernel,
    btf: SharedBtf,
    { value, needsModules, usesVersion }: TracedAnswer<T>,
    alike: readonly string[],
  ): void {
    if (alike.length === 0) return
    const number = value === undefined ? undefined : this.#count++
    if (value !== undefined) this.#values.set(number!, value)
    for (const sha256 of alike) {
      const like = { ...kernel, sha256 }
      this.#known.set(keyOf(like, usesVersion), { number, needsModules })
      if (usesVersion) this.#btfs.set(keyOf(like, false), btf)
    }
  }

  /** The kernels that probably get the same answer as one: all, before there is an answer. */
  async #guess({ inputs, sha256, version }: SharingKernel): Promise<Guess> {
    const last = this.#last.get(inputs)
    if (!last) return {}
    const digests = new Set(last.keys && (await this.#find(sha256, last.keys)))
    return { digests, ...(last.usesVersion && { version }) }
  }
}

const covers = ({ digests, ...guess }: Guess, { sha256, version }: SharingKernel): boolean =>
  digests === undefined ||
  (digests.has(sha256) && (!('version' in guess) || guess.version === version))

/** The key of answers that depend on the version of a kernel, or do not. */
const keyOf = (
  { inputs, sha256, version }: Pick<SharingKernel, 'inputs' | 'sha256' | 'version'>,
  usesVersion: boolean,
): string => `${inputs} ${sha256}${usesVersion ? ` ${version}` : ''}`
