// The parts of a guest that come from packages: a sysroot to build the agent with, busybox, and the kernel's image and
// network modules. All packages are checked against signed indexes. The kernel comes from its own distribution, the rest
// from Debian 12: its libbpf takes a BTF file, and the static agent also runs on older kernels.
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { fetchImage, type KernelImage } from '../../generator/prove/image.ts'
import { fetchSysroot } from '../../generator/prove/tools.ts'
import { type BuildRecord, openStore } from '../../storage/index.ts'
import type { Target } from './target.ts'

export interface Parts extends Pick<KernelImage, 'vmlinuz' | 'modules'> {
  sysroot: string
  busybox: string
  /** bytes of all downloaded packages */
  downloaded: number
}

/** Downloads and unpacks below `dir` the parts of a guest with the kernel of a record. */
export async function fetchParts(target: Target, record: BuildRecord, dir: string): Promise<Parts> {
  const boot = join(dir, 'kernel')
  await mkdir(boot)
  const { path, busybox, packages } = await fetchSysroot(target.arch, join(dir, 'sysroot'), {
    version: '12',
    libraries: true,
  })
  const store = await openStore('memory:')
  const image = await fetchImage(record, boot, { store, modules: target.modules })
  return {
    sysroot: path,
    busybox,
    vmlinuz: image.vmlinuz,
    modules: image.modules,
    downloaded: packages.reduce((sum, { size }) => sum + size, image.package.size ?? 0),
  }
}
