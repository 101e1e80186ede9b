/*
 * A machine's own kernel, from os-release(5), uname(2) and the build-id in /sys/kernel/notes. These files are untrusted
 * text: os-release is parsed, never executed.
 */
import { readFileSync } from 'node:fs'
import { machine, release, version } from 'node:os'
import { join } from 'node:path'
import { buildIdOf } from '../../bpf/index.ts'
import { canonicalArch, type Kernel, type KernelHints } from '../../storage/index.ts'

const MAX_OS_RELEASE = 64 * 1024

/** The path of the kernel's own BTF, if the kernel was built with it. */
export const KERNEL_BTF = '/sys/kernel/btf/vmlinux'

/** A machine's kernel, and what its os-release tells of the distributions whose kernels it may run. */
export interface HostKernel extends Kernel, KernelHints {}

/** The kernel of this machine. `root` is the directory below which the machine's files are read (default: /). */
export function thisKernel(root = '/'): HostKernel {
  const { ID, VERSION_ID, VERSION_CODENAME, ...others } = readOsRelease(root)
  const { ID_LIKE: like, UBUNTU_CODENAME, DEBIAN_CODENAME } = others
  const codename = UBUNTU_CODENAME || DEBIAN_CODENAME || VERSION_CODENAME
  const buildId = readBuildId(root)
  return {
    distro: ID?.toLowerCase() || 'linux',
    version: VERSION_ID || VERSION_CODENAME || 'rolling',
    arch: canonicalArch(machine()),
    release: release(),
    unameVersion: version(),
    ...(buildId && { buildId }),
    ...(isHint(like) && { like }),
    ...(isHint(codename) && { codename }),
  }
}

/** Tells whether a value of os-release is made of plain words, which a service takes. */
const isHint = (value: string | undefined): value is string =>
  /^[A-Za-z0-9._+~-][A-Za-z0-9._+~ -]{0,250}$/.test(value ?? '')

/** os-release(5): /etc comes first, /usr/lib is the fallback, and both may be missing. */
function readOsRelease(root: string): Record<string, string> {
  for (const path of ['etc/os-release', 'usr/lib/os-release']) {
    try {
      return parseOsRelease(readFileSync(join(root, path), 'utf8').slice(0, MAX_OS_RELEASE))
    } catch {} // try the next path
  }
  return {}
}

/** The assignments of an os-release file: shell syntax without expansion. Other lines are skipped. */
export function parseOsRelease(text: string): Record<string, string> {
  const values: Record<string, string> = {}
  for (const line of text.split('\n')) {
    const [, name, value] = /^([A-Z][A-Z0-9_]*)=(.*)$/s.exec(line) ?? []
    if (name && value !== undefined) values[name] = unquote(value.trimEnd())
  }
  return values
}

function unquote(value: string): string {
  const [, single] = /^'([^']*)'$/.exec(value) ?? []
  if (single !== undefined) return single
  const [, double] = /^"((?:[^"\\]|\\.)*)"$/.exec(value) ?? []
  return (double ?? value).replace(/\\([\\"$`])/g, '$1')
}

/** On many machines only root can read the notes. */
function readBuildId(root: string): string | undefined {
  try {
    return buildIdOf(readFileSync(join(root, 'sys/kernel/notes')), nativeByteOrder)
  } catch {
    return undefined
  }
}

const nativeByteOrder = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1 ? 'little' : 'big'
