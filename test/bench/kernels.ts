// Real Debian kernels of three series for benchmarks: their own BTF, taken from their images. The first run downloads about
// 400 MB; the store is kept in .cache/bench/kernels.
import { mkdirSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { generate } from '../../generator/index.ts'
import { Catalog, type KernelFilter, openStore, type Store } from '../../storage/index.ts'

const FOLDER = resolve(import.meta.dirname, '../../.cache/bench/kernels')
/** Kernels per row, at least. */
const EACH = 4

/** URL of the store. */
export const KERNELS_STORE = `file:${join(FOLDER, 'store')}`

/** Kernels with BTF of their own; the newest of each row are used. */
const KERNELS: readonly KernelFilter[] = [
  { version: '11', arch: 'x86_64', release: '5.10.0-[0-9][0-9]-amd64' },
  { version: '11', arch: 'x86_64', release: '5.10.0-[0-9][0-9]-cloud-amd64' },
  { version: '12', arch: 'x86_64', release: '6.1.0-[0-9][0-9]-amd64' },
  { version: '12', arch: 'x86_64', release: '6.1.0-[0-9][0-9]-cloud-amd64' },
  { version: '12', arch: 'aarch64', release: '6.1.0-[0-9][0-9]-cloud-arm64' },
  { version: '13', arch: 'x86_64', release: '6.12.*+deb13-amd64' },
  { version: '13', arch: 'x86_64', release: '6.12.*+deb13-cloud-amd64' },
  { version: '13', arch: 'aarch64', release: '6.12.*+deb13-cloud-arm64' },
]

/** Returns the store, filled with at least `each` kernels of each row. */
export async function debianKernels(each = EACH): Promise<Store> {
  mkdirSync(FOLDER, { recursive: true })
  const store = await openStore(KERNELS_STORE)
  for (const filter of KERNELS) {
    const there = [...(await Catalog.open(store)).list(filter)].filter(({ record }) => record.btf)
    if (there.length >= each) continue
    console.error(`taking the BTF of debian ${filter.version} ${filter.release}`)
    const limit = each - there.length
    await generate({
      ...{ store, cache: join(FOLDER, 'indexes'), limit, earlyStop: true },
      filter: { distro: 'debian', ...filter },
    })
  }
  return store
}
