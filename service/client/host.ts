/*
 * Describes the kernel of this machine from os-release(5), uname(2) and the build-id in /sys/kernel/notes. The files are
 * untrusted: os-release is parsed, and never run by a shell.
 */
import { readFileSync } from 'node:fs'
import { machine, release, version } from 'node:os'
import { join } from 'node:path'
import { buildIdOf } from '../../bpf/index.ts'
import { canonicalArch, type Kernel } from '../../storage/index.ts'

const MAX_OS_RELEASE = 64 * 1024

/** The path of the kernel's own BTF. */
export const KERNEL_BTF = '/sys/kernel/btf/vmlinux'

/** Returns the kernel of this machine. `root` is the root directory of its files. */
export function thisKernel(root = '/'): Kernel {
  const { ID = 'linux', VERSION_ID, VERSION_CODENAME } = readOsRelease(root)
  const buildId = readBuildId(root)
  return {
    distro: ID.toLowerCase(),
    version: VERSION_ID || VERSION_CODENAME || 'rolling',
    arch: canonicalArch(machine()),
    release: release(),
    unameVersion: version(),
    ...(buildId && { buildId }),
  }
}

function readOsRelease(root: string): Record<string, string> {
  for (const path of ['etc/os-release', 'usr/lib/os-release']) {
    try {
      return parseOsRelease(readFileSync(join(root, path), 'utf8').slice(0, MAX_OS_RELEASE))
    } catch {} // the file is optional
  }
  return {}
}

/** Parses the assignments of an os-release file: shell quoting without expansion. Other lines are skipped. */
export function parseOsRelease(text: string): Record<string, string> {
  const values: Record<string, string> = {}
  for (const line of text.split('\n')) {
    const [, name, value] = /^([A-Z][A-Z0-9_]*)=(.*?)\s*$/.exec(line) ?? []
    if (name && value !== undefined) values[name] = unquote(value)
  }
  return values
}

function unquote(value: string): string {
  const [, single] = /^'([^']*)'$/.exec(value) ?? []
  if (single !== undefined) return single
  const [, double] = /^"((?:[^"\\]|\\.)*)"$/.exec(value) ?? []
  return (double ?? value).replace(/\\([\\"$`])/g, '$1')
}

/** Returns undefined without a build-id: on many machines only root can read the notes. */
function readBuildId(root: string): string | undefined {
  try {
    return buildIdOf(readFileSync(join(root, 'sys/kernel/notes')), nativeByteOrder)
  } catch {
    return undefined
  }
}

const nativeByteOrder = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1 ? 'little' : 'big'
