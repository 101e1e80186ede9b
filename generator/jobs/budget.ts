/*
 * Memory and disk that jobs may take together. A job holds what it will probably need before it begins, and waits for
 * it, first come first served; what it turns out not to need it gives back. Where it needs more, it has it if there is
 * room; else it does not wait with what it holds in hand, since two that do so wait for ever, but is begun anew when
 * all that it needs is to be had. So what is held never exceeds the budget, and every job that fits into it gets done;
 * one that does not fails. A job that is thought not to fit is begun all the same, alone.
 */
import { mkdir, statfs } from 'node:fs/promises'
import { tmpdir, totalmem } from 'node:os'
import { constrainedMemory } from 'node:process'
import { GeneratorError } from '../error.ts'
import { DECOMPRESSOR_MEMORY } from '../packages/decompress.ts'
import type { Job } from './job.ts'

const MIB = 1024 ** 2

/** Bytes of memory, and of disk below the scratch directory. */
export interface Amount {
  memory: number
  disk: number
}

const NOTHING: Amount = { memory: 0, disk: 0 }

/** What a job's own process takes for it: buffers, and the BTF, raw and compressed. */
const BUFFERS = 64 * MIB
/** What pahole takes: 1.24 took 190 to 420 MB for Debian's kernels, whose vmlinux have 200 to 600 MB. */
const paholeMemory = (vmlinux: number): number => 256 * MIB + 0.75 * vmlinux
/** A distribution's vmlinux has up to that. */
const USUAL_VMLINUX = 640 * MIB
/** vmlinux alone takes at most so many times its package: debug info is compressed to a fifth. */
const LARGEST_RATIO = 8
/** The part of the machine's memory, and of what is free on the disk, that jobs take unless told otherwise. */
const PART = { memory: 0.75, disk: 0.9 }
/** `f_type` of a file system that is memory (statfs(2)). */
const TMPFS = 0x01021994

/** What a job needs whose vmlinux has so many bytes; beside it lies the BTF, of at most `output` bytes. */
export function needsOf(vmlinux: number, output: number): Amount {
  const memory = BUFFERS + Math.max(DECOMPRESSOR_MEMORY, paholeMemory(vmlinux))
  return { memory: Math.round(memory), disk: vmlinux + output }
}

/** What a job will probably need, as far as the sizes of its package and of the one it may fall back on tell. */
export function estimateOf({ format, package: from, fallback }: Job, output: number): Amount {
  const ratio = format === 'vmlinux' ? 1 : LARGEST_RATIO
  const { size = USUAL_VMLINUX } = from
  const { memory, disk } = needsOf(Math.min(size * ratio, USUAL_VMLINUX), output)
  const other = fallback ? estimateOf(fallback, output) : NOTHING
  return { memory: Math.max(memory, other.memory), disk: Math.max(disk, other.disk) }
}

/** The memory that pahole may have of a job's. */
export const memoryWith = (pahole: number): number => BUFFERS + pahole

export interface BudgetOptions {
  /** bytes; else three quarters of the machine's, or of its container's */
  memory?: number
  /** bytes; else nine tenths of what is free */
  disk?: number
}

/** Somebody who waits for an amount. */
interface Waiter {
  want: Amount
  grant: PromiseWithResolvers<Lease>
}

export class Budget {
  readonly total: Amount
  /** what is on the disk is in memory, too */
  readonly #diskIsMemory: boolean
  readonly #held: Amount = { memory: 0, disk: 0 }
  readonly #waiters: Waiter[] = []

  constructor(total: Amount, diskIsMemory = false) {
    this.total = total
    this.#diskIsMemory = diskIsMemory
  }

  /** The budget of this machine for a scratch directory, which is made where it is not there. */
  static async open(scratch = tmpdir(), { memory, disk }: BudgetOptions = {}): Promise<Budget> {
    await mkdir(scratch, { recursive: true })
    const { type, bavail, bsize } = await statfs(scratch)
    const machine = Math.min(totalmem(), constrainedMemory() || Number.POSITIVE_INFINITY)
    const total = {
      memory: memory ?? machine * PART.memory,
      disk: disk ?? bavail * bsize * PART.disk,
    }
    return new Budget(total, type === TMPFS)
  }

  /**
   * Waits for an amount, or for all there is where that is less. One that was short before goes `first`. Rejects with
   * the reason of a signal that aborts meanwhile.
   */
  async lease(want: Amount, { first = false, signal }: LeaseOptions = {}): Promise<Lease> {
    signal?.throwIfAborted()
    const waiter: Waiter = { want: this.#atMost(want), grant: Promise.withResolvers() }
    if (first) this.#waiters.unshift(waiter)
    else this.#waiters.push(waiter)
    const leave = () => {
      const place = this.#waiters.indexOf(waiter)
      if (place >= 0) this.#waiters.splice(place, 1)
      waiter.grant.reject(signal?.reason)
      this.#serve()
    }
    signal?.addEventListener('abort', leave, { once: true })
    this.#serve()
    try {
      return await waiter.grant.promise
    } finally {
      signal?.removeEventListener('abort', leave)
    }
  }

  /** Changes what one holds, where that is less, or there is room for more. */
  change(from: Amount, to: Amount): boolean {
    if (!this.#hasRoom(from, to)) return false
    this.#held.memory += to.memory - from.memory
    this.#held.disk += to.disk - from.disk
    this.#serve()
    return true
  }

  /** Whether it is to be had when nobody else holds anything. */
  fits({ memory, disk }: Amount): boolean {
    const inMemory = this.#diskIsMemory ? disk : 0
    return disk <= this.total.disk && memory + inMemory <= this.total.memory
  }

  #atMost(want: Amount): Amount {
    const disk = Math.min(want.disk, this.total.disk)
    const left = this.total.memory - (this.#diskIsMemory ? disk : 0)
    return { disk, memory: Math.max(0, Math.min(want.memory, left)) }
  }

  #hasRoom(from: Amount, to: Amount): boolean {
    const grows = to.disk > from.disk || to.memory > from.memory
    const disk = this.#held.disk - from.disk + to.disk
    const memory = this.#held.memory - from.memory + to.memory
    return !grows || this.fits({ memory, disk })
  }

  #serve(): void {
    for (let next = this.#waiters[0]; next; next = this.#waiters[0]) {
      if (!this.#hasRoom(NOTHING, next.want)) return
      this.#waiters.shift()
      this.#held.memory += next.want.memory
      this.#held.disk += next.want.disk
      next.grant.resolve(new Lease(this, next.want))
    }
  }
}

interface LeaseOptions {
  first?: boolean
  signal?: AbortSignal | undefined
}

/** What a job holds. */
export class Lease {
  readonly #budget: Budget
  #held: Amount
  /** what it needs, where it could not have that now, but can when others have ended */
  short: Amount | undefined
  /** why it could not have what it needs */
  refusal: GeneratorError | undefined

  constructor(budget: Budget, held: Amount) {
    this.#budget = budget
    this.#held = held
  }

  /** Whether the job may have so much in all; then it is held. */
  may(want: Partial<Amount>): boolean {
    const { memory = 0, disk = 0 } = want
    const to = {
      memory: Math.max(memory, this.#held.memory),
      disk: Math.max(disk, this.#held.disk),
    }
    if (this.#budget.change(this.#held, to)) {
      this.#held = to
      return true
    }
    this.refusal = refuse(to, this.#held, this.#budget.total)
    // what grows little by little is given more at once, so that it is not begun anew each time
    const more = to.memory > this.#held.memory ? 2 * this.#held.memory : 0
    if (this.#budget.fits(to)) this.short = { ...to, memory: Math.max(more, to.memory) }
    return false
  }

  /** Gives back all but so much. */
  keep({ memory, disk }: Amount): void {
    const to = {
      memory: Math.min(memory, this.#held.memory),
      disk: Math.min(disk, this.#held.disk),
    }
    this.#budget.change(this.#held, to)
    this.#held = to
  }

  release(): void {
    this.keep(NOTHING)
  }
}

function refuse(to: Amount, held: Amount, total: Amount): GeneratorError {
  const mib = (bytes: number) => `${Math.round(bytes / MIB)} MiB`
  return to.memory > held.memory
    ? new GeneratorError(
        'pahole_out_of_memory',
        `it needs more than ${mib(held.memory)} of memory; all jobs together may have ${mib(total.memory)}`,
      )
    : new GeneratorError(
        'no_space',
        `it needs ${mib(to.disk)} of disk; all jobs together may have ${mib(total.disk)}`,
      )
}
