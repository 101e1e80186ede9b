/*
 * Conventions that distributions with RPM packages share, and helpers to write rows of the source table. A convention
 * is here only where several families have exactly the same one.
 */
import type { NamingRule } from './naming.ts'

/** RPM's architecture names by `uname -m` name. */
export const RPM_ARCHITECTURES = { x86_64: 'x86_64', aarch64: 'aarch64' }

/** The same, with the architectures that only Red Hat, its rebuilds, Fedora and SUSE have. */
export const ALL_RPM_ARCHITECTURES = { ...RPM_ARCHITECTURES, ppc64le: 'ppc64le', s390x: 's390x' }

export const X86_64 = ['x86_64']

/**
 * Flavours of the kernel: real-time, and pages of 64 KB. The first kernel-rt packages had a revision of their own. Since
 * RHEL 9.3 the flavours are built with the kernel, and follow its release after a `+` (kernel.spec: KVERREL, Flavour).
 */
const rpmFlavours = (suffix: string): NamingRule[] => [
  {
    name: `kernel-rt-${suffix}`,
    revision: '.*[.]rt[0-9]+[.].*',
    release: '{version}-{revision}.{arch}',
  },
  {
    name: `kernel-(?<flavour>rt|64k|rt-64k)-${suffix}`,
    revision: '.*[.](el|fc)[0-9].*',
    release: '{version}-{revision}.{arch}+{flavour}',
  },
]

/** Exactly these names: kernel-debug-debuginfo and kernel-debuginfo-common-x86_64 have no vmlinux of these kernels. */
export const RPM_DEBUGINFO: NamingRule[] = [
  { name: 'kernel-debuginfo', release: '{version}-{revision}.{arch}' },
  ...rpmFlavours('debuginfo'),
]

/** The kernel image where the kernel is split into packages. */
export const RPM_IMAGES: NamingRule[] = [
  { name: 'kernel(-uek)?-core', release: '{version}-{revision}.{arch}' },
  ...rpmFlavours('core'),
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

/** What rows with an rpm-md index and a kernel that is split into packages have in common. */
export const RPM_KERNELS = {
  protocol: 'rpm-md',
  architectures: RPM_ARCHITECTURES,
  packages: RPM_DEBUGINFO,
  vmlinux: RPM_VMLINUX,
  images: RPM_IMAGES,
  vmlinuz: RPM_VMLINUZ,
} as const

/** The same for a kernel that is not split. */
export const RPM_UNSPLIT_KERNELS = { ...RPM_KERNELS, images: RPM_UNSPLIT_IMAGES }

/** A repository of debug info, and the one of kernel images beside it. */
export const debugAndImages = (
  name: string,
  debug: string,
  images: string,
  limits: { only?: string[] } = {},
) => [
  { name, url: debug, ...limits },
  { name: `${name}-os`, url: images, images: true, ...limits },
]

/** Paths of keys: where RPM distributions install their own, and where distribution-gpg-keys has all vendors'. */
export const rpmKeys = (vendor: string, ...names: string[]): string[] => [
  ...names.map((name) => `/etc/pki/rpm-gpg/${name}`),
  ...names.map((name) => `/usr/share/distribution-gpg-keys/${vendor}/${name}`),
]

/** Addresses where distribution-gpg-keys (Fedora's collection of vendors' keys) has keys, by their file names. */
export const collectedKeys = (vendor: string, ...names: string[]): string[] =>
  names.map(
    (name) =>
      `https://raw.githubusercontent.com/rpm-software-management/distribution-gpg-keys/main/keys/${vendor}/${name}`,
  )

/** The repositories of several versions, built by one function. */
export const perVersion = <T>(
  versions: readonly string[],
  make: (version: string) => T[],
): Record<string, T[]> => Object.fromEntries(versions.map((version) => [version, make(version)]))

/** The whole numbers from `from` to `to`, both included, as strings. */
export const range = (from: number, to: number): string[] =>
  Array.from({ length: to - from + 1 }, (_, i) => String(from + i))
