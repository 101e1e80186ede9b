/* A job: one package, or one file that somebody gave, on its way to being a record. */
import { basename } from 'node:path'
import { canonicalArch, type KernelName } from '../storage/index.ts'
import type { KernelPackage } from './source.ts'

export interface Job {
  /** as far as it is known before the image is read */
  kernel: Pick<KernelName, 'distro' | 'version'> & Partial<KernelName>
  package: { name: string; version: string; url: string; size?: number; sha256?: string }
  format: 'deb' | 'rpm' | 'vmlinux'
  /** path of the OpenPGP keys of which one must have signed the header of an .rpm */
  key?: string
  /** globs of the paths that vmlinux may have in the package */
  vmlinux: readonly string[]
}

/** The job that a source's package makes. */
export function jobOf(from: KernelPackage): Job {
  const { kernel, name, version, url, size, sha256, format = 'deb', key, vmlinux } = from
  const file = { name, version, url, size, sha256 }
  return { kernel, package: file, format, ...(key && { key }), vmlinux }
}

/**
 * The job that a file or URL makes: a .deb or .ddeb, else a bare vmlinux. What `kernel` leaves open the file's name
 * may tell (`linux-image-6.1.0-54-686-pae-dbg_6.1.190-1_i386.deb`), else the image itself.
 */
export function jobOfFile(url: string, kernel: Partial<KernelName>): Job {
  const file = fileNameOf(url)
  const named = /^([a-z0-9][a-z0-9+.-]*)_([\w.+~:-]+)_(\w+)\.d?deb$/.exec(file)
  const [, name = file, version = '', arch] = named ?? []
  const release = /^linux-image-(?:unsigned-)?(\d.*)-(?:dbg|dbgsym)$/.exec(name)?.[1]
  return {
    kernel: {
      distro: 'custom',
      version: 'rolling',
      ...(arch && { arch: canonicalArch(arch) }),
      ...(release && { release }),
      ...kernel,
    },
    package: { name, version, url },
    format: /\.d?deb$/.test(file) ? 'deb' : 'vmlinux',
    vmlinux: ['usr/lib/debug/boot/vmlinux-*', 'usr/lib/debug/lib/modules/*/vmlinux'],
  }
}

/** The last part of a path or URL, without the escapes that mirrors and apt's cache write (`1%3a6.12.107-1`). */
function fileNameOf(url: string): string {
  const name = basename(/^https?:/.test(url) ? url.replace(/[?#].*$/s, '') : url)
  try {
    return decodeURIComponent(name)
  } catch {
    return name
  }
}

/** The name a job's kernel goes by while the image has not told more. */
export function nameOf({ kernel, package: { name } }: Job): KernelName {
  return { arch: 'unknown', release: name, ...kernel }
}
