/*
 * Prepares the members of a bundle. The BTF of each kernel is read from the store, minimised for the objects in a
 * thread, and packed as the profile requires. Problems of a kernel become findings, and the policy decides whether the
 * kernel is included.
 */
import { LRUCache } from 'lru-cache'
import { BtfError, type Dialect } from '../../bpf/index.ts'
import {
  isDamagedObject,
  packArchive,
  packTar,
  type Store,
  type StoreError,
  sha256Of,
} from '../../storage/index.ts'
import {
  type Available,
  decidingFacts,
  factsOf,
  type KernelFacts,
  moduleDigests,
  modulesOf,
} from '../kernel/lookup.ts'
import { type ReadBtf, readRaw, withStored } from '../threads/btf-input.ts'
import { modulesFor, readModules } from '../threads/modules.ts'
import type { Pool } from '../threads/pool.ts'
import {
  type FindAlike,
  SharedAnswers,
  type SharedBtf,
  sharingInputs,
} from '../threads/shared-answers.ts'
import type { Fitted, Misfit } from '../threads/worker.ts'
import type { BundleFinding } from './manifest.ts'
import type { MemberForm, Profile } from './profile.ts'
import type { Selected } from './selection.ts'
import { frameXz } from './xz-stored.ts'

/** The treatment of kernels on which an object does not work, or whose builds have different BTF. */
type FindingPolicy = 'include' | 'skip'

/** A BPF object to minimise for. */
export interface ObjectFile {
  name: string
  bytes: Uint8Array
}

export interface BundleMember {
  path: string
  record: Available
  /** SHA-256 of the member, hex */
  sha256: string
  size: number
  /** undefined if an earlier member has the same content, to which a hard link suffices */
  bytes: Buffer | undefined
}

/** The content of a member. */
type MemberContent = Pick<BundleMember, 'sha256' | 'size'>

export interface PreparedMember {
  /** undefined if the kernel is left out */
  member: BundleMember | undefined
  findings: readonly BundleFinding[]
}

interface MembersOptions {
  store: Store
  pool: Pool
  profile: Profile
  objects: readonly ObjectFile[]
  policy: FindingPolicy
  /** whether an object asks for the version of the kernel */
  usesRelease: boolean
  /** the form of all BTF; default: as it is */
  dialect: Dialect | undefined
  /** tells which kernels have the same minimised BTF; undefined without an index */
  findAlike: FindAlike | undefined
  signal: AbortSignal
}

/** the number of minimised BTF results in memory; kernels with equal BTF are close to each other in the order */
const MAX_CACHED = 8
/** bytes of minimised BTF that is kept for other kernels */
const SHARED = 4 * 1024 * 1024

export class Members {
  readonly #options: MembersOptions
  readonly #shared: SharedAnswers<Fitted> | undefined
  readonly #minimizedBtf = new LRUCache<string, Promise<Fitted>>({ max: MAX_CACHED })
  /** key: SHA-256 of the whole BTF; value: its member, undefined if it could not be read */
  readonly #written = new Map<string, Promise<MemberContent | undefined>>()

  constructor(options: MembersOptions) {
    this.#options = options
    const { findAlike } = options
    this.#shared = findAlike && new SharedAnswers(findAlike, SHARED, ({ btf }) => btf.length)
  }

  /**
   * Prepares a kernel. Calls are made in the order of the archive, and may overlap. Damaged and invalid BTF is a
   * finding. Errors: other errors of the store and of `Pool.run`; the signal's reason.
   */
  async prepare(selected: Selected): Promise<PreparedMember> {
    const [record] = selected.builds as [Available]
    try {
      const { objects, profile } = this.#options
      if (objects.length > 0) return await this.#minimize(selected)
      const findings = selected.builds.length > 1 ? [this.#ambiguous(selected)] : []
      if (this.#isLeftOut(findings)) return { member: undefined, findings }
      if (profile.hardLinks && profile.member === 'raw')
        return await this.#readOnce(selected, findings)
      return { member: await this.#pack(selected, await this.#whole(record)), findings }
    } catch (error) {
      const finding = this.#damaged(record, error)
      return { member: undefined, findings: [finding] }
    }
  }

  /** Prepares whole BTF. BTF that an earlier member read is not read again. */
  async #readOnce(selected: Selected, findings: readonly BundleFinding[]): Promise<PreparedMember> {
    const [record] = selected.builds as [Available]
    const { path } = selected
    const { sha256 } = record.btf
    // no await before the set below: of two calls that overlap only one may read
    const earlier = this.#written.get(sha256)
    const written = earlier && (await earlier)
    if (written) return { member: { path, record, ...written, bytes: undefined }, findings }
    const packing = this.#whole(record).then((btf) => this.#pack(selected, btf))
    this.#written.set(
      sha256,
      packing.then(
        ({ sha256, size }) => ({ sha256, size }),
        () => undefined,
      ),
    )
    return { member: await packing, findings }
  }

  /** Reads whole BTF, in the dialect. Errors: those of `readRaw` and of `derive`. */
  async #whole(record: Available): Promise<Uint8Array> {
    const { store, pool, dialect, signal } = this.#options
    const btf = await readRaw(store, pool, record.btf.sha256, signal)
    return dialect ? await pool.run('derive', { btf, modules: [], dialect }, signal) : btf
  }

  async #minimize(selected: Selected): Promise<PreparedMember> {
    const [newest, ...older] = await Promise.all(selected.builds.map((build) => this.#fit(build)))
    const findings = newest!.misfits.map((misfit) => this.#unsupported(selected, misfit))
    const different = older.some(({ btf }) => !Buffer.from(btf).equals(newest!.btf))
    if (different) findings.push(this.#ambiguous(selected))
    if (this.#isLeftOut(findings)) return { member: undefined, findings }
    return { member: await this.#pack(selected, newest!.btf), findings }
  }

  #fit(record: Available): Promise<Fitted> {
    const facts = decidingFacts(factsOf(record), this.#options.usesRelease)
    const key = JSON.stringify([record.btf.sha256, moduleDigests(record), facts])
    const cached = this.#minimizedBtf.get(key)
    if (cached) return cached
    const fitting = this.#fitNew(record, facts)
    this.#minimizedBtf.set(key, fitting)
    return fitting
  }

  async #fitNew(record: Available, facts: KernelFacts): Promise<Fitted> {
    const { pool, signal } = this.#options
    if (!this.#shared) return await this.#fitAlone(record, facts)
    const { sha256, size } = record.btf
    const { facts: inputs, version } = sharingInputs(facts)
    const hasModules = modulesOf(record).length > 0
    return await this.#shared.answer(
      { sha256, size, inputs: JSON.stringify(inputs), version, hasModules },
      {
        traced: async (btf) =>
          await withStored(this.#options.store, async (read) => {
            const task = { ...(await this.#task(read, btf, facts)), hasModules }
            return await pool.run('tracedFit', task, signal)
          }),
        withModules: () => this.#fitAlone(record, facts, true),
      },
    )
  }

  /** `needsModules` says that the objects need types of modules. */
  async #fitAlone(record: Available, facts: KernelFacts, needsModules?: true): Promise<Fitted> {
    const { store, pool, signal } = this.#options
    return await withStored(store, async (read) => {
      const task = await this.#task(read, record.btf, facts)
      const all = modulesOf(record)
      const modules = needsModules
        ? await readModules(all, read)
        : await modulesFor(pool, { ...task, symbols: true }, all, read, signal)
      return await pool.run('fit', { ...task, modules }, signal)
    })
  }

  async #task(read: ReadBtf, info: SharedBtf, facts: KernelFacts) {
    const { objects, dialect } = this.#options
    return { objects: objects.map(({ bytes }) => bytes), btf: await read(info), facts, dialect }
  }

  async #pack({ path, builds }: Selected, btf: Uint8Array): Promise<BundleMember> {
    const [record] = builds as [Available]
    const { profile, signal } = this.#options
    const bytes = Buffer.from(await PACKERS[profile.member](record.kernel.release, btf, signal))
    return { path, record, sha256: sha256Of(bytes), size: bytes.length, bytes }
  }

  #isLeftOut(findings: readonly BundleFinding[]): boolean {
    return findings.some(({ included }) => !included)
  }

  #unsupported({ builds }: Selected, { object, code, message }: Misfit): BundleFinding {
    return {
      kernel: builds[0]!.kernel,
      code: 'unsupported',
      object: this.#options.objects[object]!.name,
      message: code === 'does_not_load' ? message : `${code}: ${message}`,
      included: this.#options.policy === 'include',
    }
  }

  #ambiguous({ builds }: Selected): BundleFinding {
    const versions = builds.map(
      ({ package: { version }, btf }) => version || btf.sha256.slice(0, 16),
    )
    return {
      kernel: builds[0]!.kernel,
      code: 'ambiguous',
      message: `the kernel has builds with different BTF: ${versions.join(', ')}`,
      included: this.#options.policy === 'include',
    }
  }

  #damaged({ kernel }: Available, error: unknown): BundleFinding {
    if (!isDamaged(error)) throw error
    return { kernel, code: 'damaged', message: `${error.code}: ${error.message}`, included: false }
  }
}

/** Tells whether the BTF or an object causes the error. Other errors are those of the service. */
export function isDamaged(error: unknown): error is BtfError | StoreError {
  return error instanceof BtfError || isDamagedObject(error)
}

type Packer = (
  release: string,
  btf: Uint8Array,
  signal: AbortSignal,
) => Uint8Array | Promise<Uint8Array>

const PACKERS: Readonly<Record<MemberForm, Packer>> = {
  raw: (_, btf) => btf,
  'tar.xz': packArchive,
  'framed tar.xz': async (release, btf) => frameXz(await packTar(release, btf)),
}
