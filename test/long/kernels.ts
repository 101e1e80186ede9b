/*
 * Real Debian kernels for the long tests: ten architectures, four generations. btfmill generates them once into
 * `.cache/kernels`, with early stop, since a whole package has up to a gigabyte.
 */
import { existsSync } from 'node:fs'
import { mkdir, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { generate } from '../../generator/index.ts'
import { Catalog, getBlob, type KernelFilter, openStore } from '../../storage/index.ts'

const FOLDER = join(import.meta.dirname, '../../.cache/kernels')

/** The newest match of each row is used. Debian 11 gets no new kernels. */
const KERNELS: readonly Record<'version' | 'arch' | 'release', string>[] = [
  { version: '11', arch: 'i686', release: '5.10.0-32-686' },
  { version: '11', arch: 'x86_64', release: '5.10.0-32-cloud-amd64' },
  { version: '11', arch: 'aarch64', release: '5.10.0-32-cloud-arm64' },
  { version: '12', arch: 'i686', release: '6.1.*-686-pae' },
  { version: '12', arch: 'x86_64', release: '6.1.*-cloud-amd64' },
  { version: '12', arch: 'aarch64', release: '6.1.*-cloud-arm64' },
  { version: '12', arch: 'armv7l', release: '6.1.*-armmp' },
  { version: '12', arch: 'ppc64le', release: '6.1.*-powerpc64le' },
  { version: '12', arch: 's390x', release: '6.1.*-s390x' },
  { version: '12', arch: 'mips', release: '6.1.*-4kc-malta' },
  { version: '12', arch: 'mips64', release: '6.1.*-5kc-malta' },
  { version: '13', arch: 'x86_64', release: '6.12.*-cloud-amd64' },
  { version: '13', arch: 'armv5tel', release: '6.12.*-rpi' },
  { version: '13', arch: 'riscv64', release: '6.12.*-riscv64' },
  { version: '13', arch: 's390x', release: '6.12.*-s390x' },
  { version: 'sid', arch: 'x86_64', release: '7.*-cloud-amd64' },
]

export interface TestKernel {
  name: string
  /** `uname -m` */
  arch: string
  /** path of its raw BTF */
  path: string
}

/**
 * Returns all available kernels, at least twelve. A suite whose index does not match its mirror now is skipped. The first
 * call downloads, and takes minutes.
 */
export async function kernels(): Promise<TestKernel[]> {
  await mkdir(FOLDER, { recursive: true })
  const all: TestKernel[] = []
  for (const { version, arch, release } of KERNELS) {
    const name = `${arch}-${release.replaceAll('*', 'x')}`
    const path = join(FOLDER, `${name}.btf`)
    if (!existsSync(path)) {
      const btf = await btfOf({ distro: 'debian', version, arch, release })
      if (!btf) continue
      await writeFile(`${path}.partial`, btf)
      await rename(`${path}.partial`, path)
    }
    all.push({ name, arch, path })
  }
  if (all.length < 12)
    throw new Error(`only ${all.length} kernels are available: expected at least 12`)
  return all
}

/** Generates the newest match. A package that fails is postponed, so each attempt takes the next older one. */
async function btfOf(filter: KernelFilter): Promise<Buffer | undefined> {
  const store = await openStore(`file:${join(FOLDER, 'store')}`)
  const cache = join(FOLDER, 'indexes')
  for (;;) {
    const catalog = await Catalog.open(store)
    for (const { record } of catalog.list(filter)) {
      if (record.btf) return getBlob(store, record.btf.sha256)
    }
    const { published, failed } = await generate({
      store,
      filter,
      limit: 1,
      from: 'debug',
      cache,
      earlyStop: true,
    })
    if (published === 0 && Object.keys(failed).length === 0) return undefined
  }
}
