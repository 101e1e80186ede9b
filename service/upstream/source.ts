/* What the kinds of upstreams have in common: questions, and BTF as it is sent, before anything of it is believed. */
import type { BtfInfo, BuildRecord, Kernel, KernelName, TakenFrom } from '../../storage/index.ts'
import type { LookupChoice } from '../kernel/lookup.ts'
import type { UpstreamAddress } from '../upstream-address.ts'
import { type GetOptions, getFrom, type UpstreamAnswer } from './get.ts'

/** The largest BTF that is taken, in bytes, packed or not. A distribution's largest kernels have 10 MB. */
export const MAX_SENT = 64 * 1024 * 1024

/** What is looked for: a kernel by its name, or without one a build by `choice.build`. */
export interface WantedBtf {
  kernel?: KernelName
  choice: LookupChoice
}

export interface UpstreamAsk extends WantedBtf {
  /** the header `via`, by which loops between services end */
  via: string
  signal: AbortSignal
}

/** BTF that an upstream has sent. */
export interface SentBtf {
  /** raw BTF or an ELF file with it, as it is or as a zstd frame */
  bytes: Uint8Array
  encoding: 'identity' | 'zstd'
  /** of the raw BTF, where the upstream announces it */
  sha256?: string
  /** the architecture that it must be of */
  arch: string
  /** the archive in which it was sent, if its readers compare the digest */
  archive?: Buffer
  /** the records that name it; makes them when the BTF is checked */
  records: (btf: BtfInfo) => BuildRecord[]
}

/** One kind of upstream at an address. */
export interface UpstreamSource {
  /** Finds a kernel's BTF; nothing if the upstream does not have it. Errors: `UpstreamError`. */
  find(ask: UpstreamAsk): Promise<SentBtf[]>
}

/** Requests something below the base of an upstream. Errors: those of `getFrom`. */
export type GetBelow = (
  path: string,
  options: Omit<GetOptions, 'authorization'>,
) => Promise<UpstreamAnswer>

export const getterOf =
  ({ base, authorization }: UpstreamAddress): GetBelow =>
  (path, options) =>
    getFrom(new URL(path, base), { ...options, authorization })

/** The record of BTF from an archive, which tells nothing of the package. */
export function archivedRecord(
  kernel: Kernel,
  btf: BtfInfo,
  file: { url: string; sha256: string; size: number },
  from: Pick<TakenFrom, 'kind' | 'url' | 'vouched'>,
): BuildRecord {
  const now = new Date().toISOString()
  const { distro, version, arch, release, buildId, unameVersion } = kernel
  const isAnnounced = from.vouched === 'digest' && file.url.startsWith('https:')
  return {
    schema: 1,
    kernel: {
      ...{ distro, version, arch, release },
      ...(buildId !== undefined && { buildId }),
      ...(unameVersion !== undefined && { unameVersion }),
    },
    package: {
      name: from.kind,
      version: '', // unknown; the record is named after its BTF instead
      ...file,
      authenticated: isAnnounced ? 'digest' : 'none',
    },
    origin: 'import',
    btf,
    tool: { name: 'none', version: '', options: [], fingerprint: 'import' },
    takenFrom: [{ ...from, takenAt: now }],
    createdAt: now,
    updatedAt: now,
  }
}
