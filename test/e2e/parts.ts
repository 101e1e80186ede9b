// The parts of a guest that come from packages: a sysroot to build the agent with, busybox, and the kernel's image and
// network modules. All packages are checked against signed indexes. The kernel comes from its own distribution, the rest
// from Debian 12: its libbpf takes a BTF file, and the static agent also runs on older kernels.
import { globSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { Kernel } from '../../storage/index.ts'
import { findPackages, type Package, unpackPackage } from './package.ts'
import type { Target } from './target.ts'

/** The headers and static libraries of a libbpf program, and a shell for the guest. */
const SYSROOT = [
  'libc6-dev',
  'libbpf-dev',
  'libelf-dev',
  'linux-libc-dev',
  'zlib1g-dev',
  'busybox-static',
]
/** GCC's runtime library has its version in its name; the newest is used. */
const LIBGCC = /^libgcc-\d+-dev$/

export interface Parts {
  sysroot: string
  busybox: string
  vmlinuz: string
  /** in the order in which they load */
  modules: string[]
  /** all downloaded packages */
  packages: Package[]
}

/** Downloads and unpacks below `dir` the parts of a guest with this kernel, in this version of its package. */
export async function fetchParts(
  target: Target,
  kernel: Kernel,
  version: string,
  dir: string,
): Promise<Parts> {
  const image = `linux-image-${kernel.release}`
  const newest = (found: Package[], wanted: (pkg: Package) => boolean, what: string): Package => {
    const pkg = found.find(wanted)
    if (!pkg) throw new Error(`found no ${what} for ${target.debian}`)
    return pkg
  }
  const offered = await findPackages(
    { distro: 'debian', version: '12', arch: kernel.arch },
    (name) => SYSROOT.includes(name) || LIBGCC.test(name),
  )
  const libraries = [
    ...SYSROOT.map((name) => newest(offered, (pkg) => pkg.name === name, name)),
    newest(offered, (pkg) => LIBGCC.test(pkg.name), 'libgcc'),
  ]
  const kernelImage = newest(
    await findPackages(kernel, (name) => name === image),
    (pkg) => pkg.version === version,
    `${image} ${version}`,
  )

  const [sysroot, boot] = [join(dir, 'sysroot'), join(dir, 'kernel')]
  await mkdir(sysroot, { recursive: true })
  await mkdir(boot)
  for (const pkg of libraries) await unpackPackage(pkg, sysroot)
  await unpackPackage(kernelImage, boot, [
    `*/vmlinuz-${kernel.release}`,
    ...target.modules.map((name) => `*/${name}.ko`),
  ])

  const [vmlinuz] = globSync(join(boot, '**/vmlinuz-*'))
  const modules = target.modules.flatMap((name) => globSync(join(boot, `**/${name}.ko`)))
  if (!vmlinuz || modules.length !== target.modules.length)
    throw new Error(`${image} lacks vmlinuz, or a module of ${target.modules.join(', ')}`)
  return {
    sysroot,
    busybox: join(sysroot, 'bin/busybox'),
    vmlinuz,
    modules,
    packages: [...libraries, kernelImage],
  }
}
