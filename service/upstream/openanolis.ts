/*
 * OpenAnolis' mirror of BTF for coolbpf, and SysOM's buckets: `ARCH/vmlinux-RELEASE`, raw or ELF, below /coolbpf/btf or
 * /home/hive/btf. A file is named after the architecture and the release alone, so the distribution of its record is the one
 * that was asked for, or else the one that the release tells.
 */
import { ANY, distributionIn, type KernelName, namesOf, sha256Of } from '../../storage/index.ts'
import type { UpstreamAddress } from '../upstream-address.ts'
import { isMissing, statusError } from './archive.ts'
import {
  archivedRecord,
  getterOf,
  MAX_SENT,
  type SentBtf,
  type UpstreamAsk,
  type UpstreamSource,
} from './source.ts'

/** The name of a kernel's record: without wildcards. */
function named(kernel: KernelName): KernelName {
  if (![kernel.distro, kernel.version].includes(ANY)) return kernel
  const told = distributionIn(kernel.release)
  if ([ANY, told.distro].includes(kernel.distro)) return { ...kernel, ...told }
  return { ...kernel, version: 'rolling' }
}

export class OpenAnolisUpstream implements UpstreamSource {
  readonly #address: UpstreamAddress
  /** of the directories of architectures, below the base */
  readonly #folder: string

  constructor(address: UpstreamAddress) {
    this.#address = address
    this.#folder = address.base.endsWith('/btf/') ? '' : 'coolbpf/btf/'
  }

  async find({ kernel, signal, via }: UpstreamAsk): Promise<SentBtf[]> {
    if (!kernel || kernel.arch === ANY) return []
    const { arch, release } = kernel
    const path = `${this.#folder}${encodeURIComponent(arch)}/vmlinux-${encodeURIComponent(release)}`
    const { status, body } = await getterOf(this.#address)(path, {
      signal,
      limit: MAX_SENT,
      headers: { via },
    })
    if (isMissing(status, this.#address)) return []
    if (status !== 200) throw statusError(status, this.#address)
    const file = {
      url: `${this.#address.base}${path}`,
      sha256: sha256Of(body),
      size: body.length,
    }
    const from = { kind: 'openanolis', url: this.#address.base, vouched: 'none' } as const
    const name = namesOf(named(kernel)).at(-1)!
    return [
      {
        bytes: body,
        encoding: 'identity',
        arch,
        records: (btf) => [archivedRecord(name, btf, file, from)],
      },
    ]
  }
}
