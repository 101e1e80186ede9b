/*
 * Conventions that distributions with RPM packages share, and helpers to write rows of the source table. A convention
 * is here only where several families have exactly the same one.
 */
import type { NamingRule } from './naming.ts'

/** RPM's architecture names by `uname -m` name. */
export const RPM_ARCHITECTURES = { x86_64: 'x86_64', aarch64: 'aarch64' }

export const X86_64 = ['x86_64']

/** Exactly this name: kernel-debug-debuginfo and kernel-debuginfo-common-x86_64 have no vmlinux of this kernel. */
export const RPM_DEBUGINFO: NamingRule[] = [
  { name: 'kernel-debuginfo', release: '{version}-{revision}.{arch}' },
]

/** The kernel image where the kernel is split into packages. */
export const RPM_IMAGES: NamingRule[] = [
  { name: 'kernel(-uek)?-core', release: '{version}-{revision}.{arch}' },
]

/** The kernel image where it is not split. Where it is, `kernel` is a metapackage beside `kernel-core`. */
export const RPM_UNSPLIT_IMAGES: NamingRule[] = [
  { name: 'kernel([0-9.]+)?', release: '{version}-{revision}.{arch}' },
]

/** Paths of vmlinux in a debuginfo package. */
export const RPM_VMLINUX = [
  'usr/lib/debug/lib/modules/{release}/vmlinux',
  'usr/lib/debug/usr/lib/modules/{release}/vmlinux',
]

/** Paths of vmlinuz in an image package. */
export const RPM_VMLINUZ = [
  'boot/vmlinuz-{release}',
  'lib/modules/{release}/vmlinuz',
  'usr/lib/modules/{release}/vmlinuz',
]

/** Paths of keys: where RPM distributions install their own, and where distribution-gpg-keys has all vendors'. */
export const rpmKeys = (vendor: string, ...names: string[]): string[] => [
  ...names.map((name) => `/etc/pki/rpm-gpg/${name}`),
  ...names.map((name) => `/usr/share/distribution-gpg-keys/${vendor}/${name}`),
]

/** The repositories of several versions, built by one function. */
export const perVersion = <T>(
  versions: readonly string[],
  make: (version: string) => T[],
): Record<string, T[]> => Object.fromEntries(versions.map((version) => [version, make(version)]))

/** The whole numbers from `from` to `to`, both included, as strings. */
export const range = (from: number, to: number): string[] =>
  Array.from({ length: to - from + 1 }, (_, i) => String(from + i))
