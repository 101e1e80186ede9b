/*
 * A kernel made ready for a bundle: its BTF read, or fitted to the objects in a thread, and packed as the profile has
 * it. What stands in the way of a kernel is found here, and what becomes of it then decided.
 */
import { LRUCache } from 'lru-cache'
import { BtfError } from '../../bpf/index.ts'
import {
  type BtfInfo,
  getBlob,
  packArchive,
  packTar,
  readCompressedBlob,
  type Store,
  StoreError,
  sha256Of,
} from '../../storage/index.ts'
import type { Available } from '../kernel/lookup.ts'
import type { Pool } from '../threads/pool.ts'
import type { Fitted, Misfit } from '../threads/worker.ts'
import type { BundleFinding } from './manifest.ts'
import type { MemberForm, Profile } from './profile.ts'
import type { Selected } from './selection.ts'
import { frameXz } from './xz-stored.ts'

/** What becomes of a kernel on which an object does not work, or whose builds need different BTF. */
export type Policy = 'include' | 'skip'

/** A BPF object to minimise for. */
export interface ObjectFile {
  name: string
  bytes: Uint8Array
}

export interface BundleMember {
  path: string
  record: Available
  /** of the bytes of the member */
  sha256: string
  size: number
  /** undefined where a member before has the same: then nobody needs them again */
  bytes: Buffer | undefined
}

export interface PreparedMember {
  /** undefined where the kernel is left out */
  member: BundleMember | undefined
  findings: readonly BundleFinding[]
}

interface MembersOptions {
  store: Store
  pool: Pool
  profile: Profile
  objects: readonly ObjectFile[]
  policy: Policy
  signal: AbortSignal
}

/** Of so many the fitted BTF is kept, for others with the same; similar kernels come one after the other. */
const REMEMBERED = 8

export class Members {
  readonly #parts: MembersOptions
  readonly #fitted = new LRUCache<string, Promise<Fitted>>({ max: REMEMBERED })
  /** by the digest of whole BTF, whether it could be read */
  readonly #read = new Map<string, Promise<boolean>>()

  constructor(parts: MembersOptions) {
    this.#parts = parts
  }

  /**
   * Makes a kernel ready; called for each in its turn, though others may still be under way. Errors: those of the
   * store, but for BTF that is not whole; those of `Pool.run`, but for BTF that does not read; the signal's reason.
   */
  async prepare(selected: Selected): Promise<PreparedMember> {
    const [record] = selected.builds as [Available]
    try {
      const { objects, profile } = this.#parts
      if (objects.length > 0) return await this.#minimized(selected)
      const findings = selected.builds.length > 1 ? [this.#ambiguous(selected)] : []
      if (this.#isLeftOut(findings)) return { member: undefined, findings }
      if (profile.links && profile.member === 'raw') return await this.#once(selected, findings)
      const raw = await getBlob(this.#parts.store, record.btf.sha256)
      return { member: await this.#pack(selected, raw), findings }
    } catch (error) {
      const finding = this.#damaged(record, error)
      return { member: undefined, findings: [finding] }
    }
  }

  /** Whole BTF, which is not read where it was before. */
  async #once(selected: Selected, findings: readonly BundleFinding[]): Promise<PreparedMember> {
    const [record] = selected.builds as [Available]
    const { sha256, size } = record.btf
    const member = { path: selected.path, record, sha256, size }
    const before = this.#read.get(sha256)
    if (before && (await before)) return { member: { ...member, bytes: undefined }, findings }
    const reading = getBlob(this.#parts.store, sha256)
    const succeeding = reading.then(
      () => true,
      () => false,
    )
    this.#read.set(sha256, succeeding)
    return { member: { ...member, bytes: await reading }, findings }
  }

  async #minimized(selected: Selected): Promise<PreparedMember> {
    const [newest, ...older] = await Promise.all(selected.builds.map(({ btf }) => this.#fit(btf)))
    const findings = newest!.misfits.map((misfit) => this.#unsupported(selected, misfit))
    const different = older.some(({ btf }) => !Buffer.from(btf).equals(newest!.btf))
    if (different) findings.push(this.#ambiguous(selected))
    if (this.#isLeftOut(findings)) return { member: undefined, findings }
    return { member: await this.#pack(selected, newest!.btf), findings }
  }

  #fit({ sha256, size }: BtfInfo): Promise<Fitted> {
    const known = this.#fitted.get(sha256)
    if (known) return known
    const { store, pool, objects, signal } = this.#parts
    const files = objects.map(({ bytes }) => bytes)
    const fitting = readCompressedBlob(store, sha256).then((frame) =>
      pool.run('fit', { objects: files, btf: { frame, sha256, size } }, signal),
    )
    this.#fitted.set(sha256, fitting)
    return fitting
  }

  async #pack({ path, builds }: Selected, btf: Uint8Array): Promise<BundleMember> {
    const [record] = builds as [Available]
    const { profile, signal } = this.#parts
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
      object: this.#parts.objects[object]!.name,
      message: code === 'does_not_load' ? message : `${code}: ${message}`,
      included: this.#parts.policy === 'include',
    }
  }

  #ambiguous({ builds }: Selected): BundleFinding {
    const versions = builds.map(
      ({ package: { version }, btf }) => version || btf.sha256.slice(0, 16),
    )
    return {
      kernel: builds[0]!.kernel,
      code: 'ambiguous',
      message: `it has builds with different BTF: ${versions.join(', ')}`,
      included: this.#parts.policy === 'include',
    }
  }

  #damaged({ kernel }: Available, error: unknown): BundleFinding {
    if (!isDamaged(error)) throw error
    return { kernel, code: 'damaged', message: `${error.code}: ${error.message}`, included: false }
  }
}

/** Whether something is wrong with BTF or an object; anything else is wrong with us. */
export function isDamaged(error: unknown): error is BtfError | StoreError {
  if (error instanceof BtfError) return true
  return error instanceof StoreError && ['not_found', 'digest_mismatch'].includes(error.code)
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
