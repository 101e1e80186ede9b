/*
 * Real kernels for the long tests: Debian's, of ten machines and four generations, generated as btfmill generates them
 * (early stop: these are for tests, and the whole of each package is up to a gigabyte) into `.cache/kernels`, once.
 */
import { existsSync } from 'node:fs'
import { mkdir, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { generate } from '../../generator/index.ts'
import { Catalog, getBlob, type KernelFilter, openStore } from '../../storage/index.ts'

const FOLDER = join(import.meta.dirname, '../../.cache/kernels')

/** The newest that matches each; Debian 11 gets no new ones. */
const KERNELS: readonly Required<Omit<KernelFilter, 'distro'>>[] = [
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
  /** of its raw BTF */
  path: string
}

/** All of them, at least twelve; the first call of all downloads and takes minutes. */
export async function kernels(): Promise<TestKernel[]> {
  await mkdir(FOLDER, { recursive: true })
  const all: TestKernel[] = []
  for (const { version, arch, release } of KERNELS) {
    const name = `${arch}-${release.replaceAll('*', 'x')}`
    const path = join(FOLDER, `${name}.btf`)
    if (!existsSync(path)) {
      await writeFile(`${path}.partial`, await btfOf({ distro: 'debian', version, arch, release }))
      await rename(`${path}.partial`, path)
    }
    all.push({ name, arch, path })
  }
  return all
}

/** A package that fails is put off, so that each attempt takes the next older one. */
async function btfOf(filter: KernelFilter): Promise<Buffer> {
  const store = await openStore(`file:${join(FOLDER, 'store')}`)
  const cache = join(FOLDER, 'indexes')
  for (let attempt = 0; attempt < 20; attempt++) {
    const catalog = await Catalog.open(store)
    for (const { record } of catalog.list(filter)) {
      if (record.btf) return getBlob(store, record.btf.sha256)
    }
    await generate({ store, filter, limit: 1, cache, earlyStop: true })
  }
  throw new Error(`no kernel for ${JSON.stringify(filter)}`)
}
