/*
 * The programs that run in a guest: a busybox that is process 1, and a loader with libbpf. Both are static programs of
 * the guest's architecture, from Debian's packages: busybox as it is, the loader compiled from load.c with clang and lld
 * against Debian's libraries. The machine needs no packages of another architecture.
 */
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { copyFile, mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { GeneratorError } from '../error.ts'
import { withScratch } from '../scratch.ts'
import { runChild } from '../subprocess.ts'
import { kept } from './kept.ts'
import type { Machine } from './machine.ts'
import { type DebianPackage, findDebianPackages, unpackDebianPackage } from './package.ts'

/** The headers and static libraries of a libbpf program, without those that came with later versions of Debian. */
const LIBRARIES = ['libc6-dev', 'libbpf-dev', 'libelf-dev', 'linux-libc-dev', 'zlib1g-dev']
const COMPRESSION = 'libzstd-dev'
const BUSYBOX = 'busybox-static'
/** GCC's runtime library has its version in its name; the newest is used. */
const LIBGCC = /^libgcc-\d+-dev$/

/** Debian's releases with static programs that old kernels run, too: the newest, which has the newest libbpf, and the one before. */
const VERSIONS = ['13', '12'] as const

export interface ToolOptions {
  /** Debian's VERSION_ID (default: the one with the newest libbpf that old kernels run) */
  version?: string
  /** also the headers and libraries of a libbpf program (default: busybox alone) */
  libraries?: boolean
  /** URL of the main archive, `http://host/debian` */
  mirror?: string | undefined
  signal?: AbortSignal | undefined
}

export interface Sysroot {
  path: string
  /** path of a static busybox */
  busybox: string
  /** all downloaded packages */
  packages: DebianPackage[]
}

/**
 * Downloads and unpacks into `path` the packages of a guest's programs, for an architecture (`uname -m`). Errors:
 * `not_found_upstream` if one is missing; those of `findDebianPackages` and `unpackDebianPackage`.
 */
export async function fetchSysroot(
  arch: string,
  path: string,
  { version = VERSIONS[0], libraries = false, mirror, signal }: ToolOptions = {},
): Promise<Sysroot> {
  const names = libraries ? [BUSYBOX, ...LIBRARIES] : [BUSYBOX]
  const offered = await findDebianPackages(
    { distro: 'debian', version, arch },
    (name) => names.includes(name) || (libraries && (name === COMPRESSION || LIBGCC.test(name))),
    { mirror, signal },
  )
  const newest = (wanted: (name: string) => boolean) => offered.find(({ name }) => wanted(name))
  const found = names.map((name) => {
    const pkg = newest((other) => other === name)
    if (pkg) return pkg
    const message = `Debian ${version} has no package ${name} for ${arch}`
    throw new GeneratorError('not_found_upstream', message)
  })
  const others = [newest((name) => name === COMPRESSION), newest((name) => LIBGCC.test(name))]
  const packages = [...found, ...others.filter((pkg) => pkg !== undefined)]
  await mkdir(path, { recursive: true })
  for (const pkg of packages) await unpackDebianPackage(pkg, path, ['*'], signal)
  return { path, busybox: join(path, version === '12' ? 'bin' : 'usr/bin', 'busybox'), packages }
}

const LOADER_SOURCE = join(import.meta.dirname, 'load.c')

export interface GuestPrograms {
  /** paths of static programs */
  busybox: string
  loader?: string
}

interface GuestProgramOptions extends Pick<ToolOptions, 'mirror' | 'signal'> {
  /** clang, which makes the loader; without it, there is none */
  compiler?: string | undefined
}

/** The programs of a guest, kept in `cache`. Errors: those of `fetchSysroot` and `buildLoader`. */
export async function guestPrograms(
  arch: string,
  machine: Machine,
  cache: string,
  { compiler, mirror, signal }: GuestProgramOptions,
): Promise<GuestPrograms> {
  const source = compiler === undefined ? '' : await readFile(LOADER_SOURCE)
  const version = createHash('sha256').update(source).digest('hex').slice(0, 16)
  const directory = await kept(cache, `guest-${arch}-${version}`, async (into) => {
    await withScratch(undefined, async (scratch) => {
      const libraries = compiler !== undefined
      const fetch = (version: string) =>
        fetchSysroot(arch, join(scratch, version), { version, libraries, mirror, signal })
      const [newest, older] = VERSIONS
      // a mirror may lack packages of its index
      const sysroot = await fetch(newest).catch((error: unknown) => {
        if (!(error instanceof GeneratorError) || error.code !== 'not_found_upstream') throw error
        return fetch(older)
      })
      await copyFile(sysroot.busybox, join(into, 'busybox'))
      if (compiler) await buildLoader(compiler, machine, sysroot.path, join(into, 'loader'), signal)
    })
  })
  const busybox = join(directory, 'busybox')
  return { busybox, ...(compiler !== undefined && { loader: join(directory, 'loader') }) }
}

/** The newest first: lld links for s390x since LLVM 18. */
const COMPILERS = ['clang-21', 'clang-20', 'clang-19', 'clang']
const COMPILE_SECONDS = 120
const VERSION_SECONDS = 30

/** Throws if QEMU for a machine is not installed. Errors: `qemu_missing`. */
export async function requireQemu({ qemu }: Machine, signal?: AbortSignal): Promise<void> {
  if (await isInstalled(qemu.program, signal)) return
  const message = `${qemu.program} is not installed: install it, from the package ${qemu.package} on Debian`
  throw new GeneratorError('qemu_missing', message)
}

/** The name of the newest clang that is installed. Errors: `compiler_missing`. */
export async function findCompiler(signal?: AbortSignal): Promise<string> {
  for (const compiler of COMPILERS) if (await isInstalled(compiler, signal)) return compiler
  const message =
    'clang is not installed: install clang and lld, which make the loader, or use --command'
  throw new GeneratorError('compiler_missing', message)
}

async function isInstalled(program: string, signal?: AbortSignal): Promise<boolean> {
  const limits = { seconds: VERSION_SECONDS, ...(signal && { signal }) }
  return (await runChild(program, ['--version'], limits)).ended !== 'missing'
}

/** Compiles load.c with a machine's sysroot into a static program. Errors: `compiler_failed` with its messages. */
export async function buildLoader(
  compiler: string,
  { triple, multiarch, asm }: Machine,
  sysroot: string,
  target: string,
  signal?: AbortSignal,
): Promise<void> {
  const libraries = join(sysroot, 'usr/lib', multiarch)
  const args = [
    ...[`--target=${triple}`, `--sysroot=${sysroot}`, '-static', '-fuse-ld=lld', '-O2', '-Wall'],
    // Debian 13 has links to these headers, which are not unpacked
    ...['-isystem', join(sysroot, 'usr/lib/linux/uapi', asm)],
    ...['-L', libraries],
    ...[LOADER_SOURCE, '-o', target],
    ...['-lbpf', '-lelf', '-lz', ...(existsSync(join(libraries, 'libzstd.a')) ? ['-lzstd'] : [])],
  ]
  const { status, stderr } = await runChild(compiler, args, {
    seconds: COMPILE_SECONDS,
    ...(signal && { signal }),
  })
  if (status !== 0)
    throw new GeneratorError('compiler_failed', `the loader does not compile: ${stderr}`)
}
