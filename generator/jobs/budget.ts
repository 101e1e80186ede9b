/*
 * The memory and the disk space that all jobs may use together.
 *
 * A job leases what it will probably need before it starts, and waits for it, first come, first served. It gives back
 * what it turns out not to need. If it needs more, the lease grows at once or not at all: a job that waited while
 * holding a lease could deadlock with another that does the same. A job whose lease cannot grow ends, and is started
 * again when the larger amount is free. So leases never exceed the budget, and every job that fits into it gets done.
 * A job that needs more than the whole budget fails. The estimate may be too high, so a job that seems not to fit is
 * still tried, alone.
 */
import { mkdir, statfs } from 'node:fs/promises'
import { tmpdir, totalmem } from 'node:os'
import { constrainedMemory } from 'node:process'
import { GeneratorError } from '../error.ts'
import { DECOMPRESSOR_MEMORY } from '../packages/decompress.ts'
import type { Job } from './job.ts'

const MIB = 1024 ** 2

/** Bytes of memory, and bytes of disk below the scratch directory. */
export interface Amount {
  memory: number
  disk: number
}

const NOTHING: Amount = { memory: 0, disk: 0 }

/** Memory that this process uses for a job: buffers, and the BTF, raw and compressed. */
const BUFFERS = 64 * MIB
/** Memory of pahole: 1.24 used 190 to 420 MB for Debian's kernels, whose vmlinux have 200 to 600 MB. */
const paholeMemory = (vmlinux: number): number => 256 * MIB + 0.75 * vmlinux
/** The size of a distribution's vmlinux is at most about this. */
const USUAL_VMLINUX = 640 * MIB
/** Upper bound of the size of vmlinux divided by the size of its package: debug info is compressed to a fifth. */
const MAX_COMPRESSION_RATIO = 8
/** The default budget, as a share of the machine's memory and of the free disk space. */
const DEFAULT_SHARE = { memory: 0.75, disk: 0.9 }
/** `f_type` of a file system that is kept in memory (statfs(2)). */
const TMPFS = 0x01021994

/** The needs of a job whose vmlinux has `vmlinux` bytes and whose BTF has at most `output` bytes. */
export function needsOf(vmlinux: number, output: number): Amount {
  const memory = BUFFERS + Math.max(DECOMPRESSOR_MEMORY, paholeMemory(vmlinux))
  return { memory: Math.round(memory), disk: vmlinux + output }
}

/** Estimates a job's needs from the sizes of its package and of its fallbacks' packages. */
export function estimateOf({ format, package: from, fallbacks }: Job, output: number): Amount {
  const ratio = format === 'vmlinux' ? 1 : MAX_COMPRESSION_RATIO
  const { size = USUAL_VMLINUX } = from
  const own = needsOf(Math.min(size * ratio, USUAL_VMLINUX), output)
  const all = [own, ...(fallbacks ?? []).map((fallback) => estimateOf(fallback, output))]
  return {
    memory: Math.max(...all.map(({ memory }) => memory)),
    disk: Math.max(...all.map(({ disk }) => disk)),
  }
}

/** The memory of a job whose pahole uses `pahole` bytes. */
export const memoryWith = (pahole: number): number => BUFFERS + pahole

export interface BudgetOptions {
  /** bytes; default: 75 % of the memory of the machine or of its container */
  memory?: number
  /** bytes; default: 90 % of the free space */
  disk?: number
}

/** A job that waits for a lease. */
interface Waiter {
  want: Amount
  lease: PromiseWithResolvers<Lease>
}

interface LeaseOptions {
  /** wait at the front of the line, as a job does that is started again */
  first?: boolean
  signal?: AbortSignal | undefined
}

export class Budget {
  readonly total: Amount
  /** files on the disk use memory, too */
  readonly #diskIsMemory: boolean
  readonly #leased: Amount = { memory: 0, disk: 0 }
  readonly #waiters: Waiter[] = []

  constructor(total: Amount, diskIsMemory = false) {
    this.total = total
    this.#diskIsMemory = diskIsMemory
  }

  /** The budget of this machine for a scratch directory, which is created if it does not exist. */
  static async open(scratch = tmpdir(), { memory, disk }: BudgetOptions = {}): Promise<Budget> {
    await mkdir(scratch, { recursive: true })
    const { type, bavail, bsize } = await statfs(scratch)
    const machine = Math.min(totalmem(), constrainedMemory() || Number.POSITIVE_INFINITY)
    const total = {
      memory: memory ?? machine * DEFAULT_SHARE.memory,
      disk: disk ?? bavail * bsize * DEFAULT_SHARE.disk,
    }
    return new Budget(total, type === TMPFS)
  }

  /**
   * Waits until an amount is free, and leases it. Leases the whole budget if the amount is larger. Rejects with the
   * reason of `signal` if it aborts before.
   */
  async lease(want: Amount, { first = false, signal }: LeaseOptions = {}): Promise<Lease> {
    signal?.throwIfAborted()
    const waiter: Waiter = { want: this.#limit(want), lease: Promise.withResolvers() }
    if (first) this.#waiters.unshift(waiter)
    else this.#waiters.push(waiter)
    const leave = () => {
      const place = this.#waiters.indexOf(waiter)
      if (place >= 0) this.#waiters.splice(place, 1)
      waiter.lease.reject(signal?.reason)
      this.#serveWaiters()
    }
    signal?.addEventListener('abort', leave, { once: true })
    this.#serveWaiters()
    try {
      return await waiter.lease.promise
    } finally {
      signal?.removeEventListener('abort', leave)
    }
  }

  /** Changes the size of a lease. Returns false, and changes nothing, if the rest of the budget is too small. */
  resize(from: Amount, to: Amount): boolean {
    if (!this.#hasRoom(from, to)) return false
    this.#leased.memory += to.memory - from.memory
    this.#leased.disk += to.disk - from.disk
    this.#serveWaiters()
    return true
  }

  /** Tells whether an amount is within the whole budget. */
  fits({ memory, disk }: Amount): boolean {
    const inMemory = this.#diskIsMemory ? disk : 0
    return disk <= this.total.disk && memory + inMemory <= this.total.memory
  }

  /** The amount, or the largest part of it that fits into the whole budget. */
  #limit(want: Amount): Amount {
    const disk = Math.min(want.disk, this.total.disk)
    const left = this.total.memory - (this.#diskIsMemory ? disk : 0)
    return { disk, memory: Math.max(0, Math.min(want.memory, left)) }
  }

  #hasRoom(from: Amount, to: Amount): boolean {
    const grows = to.disk > from.disk || to.memory > from.memory
    const disk = this.#leased.disk - from.disk + to.disk
    const memory = this.#leased.memory - from.memory + to.memory
    return !grows || this.fits({ memory, disk })
  }

  #serveWaiters(): void {
    for (let next = this.#waiters[0]; next; next = this.#waiters[0]) {
      if (!this.#hasRoom(NOTHING, next.want)) return
      this.#waiters.shift()
      this.#leased.memory += next.want.memory
      this.#leased.disk += next.want.disk
      next.lease.resolve(new Lease(this, next.want))
    }
  }
}

/** Why a lease could not grow. */
export interface Denial {
  /** the failure of the job if waiting does not help: `pahole_out_of_memory` or `no_space` */
  error: GeneratorError
  /** what to lease before the job is started again; undefined if it is more than the whole budget */
  want: Amount | undefined
}

/** The part of a budget that one job holds. */
export class Lease {
  readonly #budget: Budget
  #held: Amount

  constructor(budget: Budget, held: Amount) {
    this.#budget = budget
    this.#held = held
  }

  /** Grows the lease to at least `want`, without waiting. Returns the reason if the rest of the budget is too small. */
  grow({ memory = 0, disk = 0 }: Partial<Amount>): Denial | undefined {
    const to = {
      memory: Math.max(memory, this.#held.memory),
      disk: Math.max(disk, this.#held.disk),
    }
    if (this.#budget.resize(this.#held, to)) {
      this.#held = to
      return undefined
    }
    const error = denialError(to, this.#held, this.#budget.total)
    if (!this.#budget.fits(to)) return { error, want: undefined }
    // memory grows little by little: doubling it limits how often the job is started again
    const double = to.memory > this.#held.memory ? 2 * this.#held.memory : 0
    return { error, want: { ...to, memory: Math.max(double, to.memory) } }
  }

  /** Gives back what exceeds an amount. */
  shrink({ memory, disk }: Amount): void {
    const to = {
      memory: Math.min(memory, this.#held.memory),
      disk: Math.min(disk, this.#held.disk),
    }
    this.#budget.resize(this.#held, to)
    this.#held = to
  }

  release(): void {
    this.shrink(NOTHING)
  }
}

function denialError(to: Amount, held: Amount, total: Amount): GeneratorError {
  const mib = (bytes: number) => `${Math.round(bytes / MIB)} MiB`
  return to.memory > held.memory
    ? new GeneratorError(
        'pahole_out_of_memory',
        `the job needs more than ${mib(held.memory)} of memory; the limit for all jobs together is ${mib(total.memory)}`,
      )
    : new GeneratorError(
        'no_space',
        `the job needs ${mib(to.disk)} of disk space; the limit for all jobs together is ${mib(total.disk)}`,
      )
}
