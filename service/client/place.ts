/*
 * Where loaders look for BTF if a program names none. Each row has its source. Every path has the release in it, so that a
 * file is never taken for another kernel.
 */

export interface Place {
  /** the path for a release */
  path: (release: string) => string
  /** paths that the loader reads before it */
  before: readonly ((release: string) => string)[]
}

/*
 * libbpf `btf__load_vmlinux_btf` (src/btf.c). Not /boot, where GRUB would offer it as a kernel, and not
 * /usr/lib/debug, which belongs to debug packages and is searched by perf.
 */
const LIBBPF: Place = {
  path: (release) => `/lib/modules/${release}/vmlinux-${release}`,
  before: [(release) => `/boot/vmlinux-${release}`],
}

/** Where each loader looks. */
export const PLACES = {
  libbpf: LIBBPF,
  // cilium/ebpf btf/kernel.go `findVMLinux`: the same list; it takes the first that exists
  cilium: LIBBPF,
  // cilium/tetragon pkg/btf/btf.go `observerFindBTF`, pkg/defaults/defaults.go `DefaultTetragonLib`
  tetragon: { path: (release) => `/var/lib/tetragon/metadata/vmlinux-${release}`, before: [] },
  // mozillazg/ptcpdump internal/btf/btf.go `loadSpecFromCandidateLocations`
  ptcpdump: {
    path: (release) => `/var/lib/ptcpdump/btf/vmlinux-${release}`,
    before: [...LIBBPF.before, LIBBPF.path, () => '/var/lib/ptcpdump/btf/vmlinux'],
  },
  // hengyoush/kyanos agent/.../loader `loadSpecFromCandidateLocations`
  kyanos: {
    path: (release) => `/var/lib/kyanos/btf/vmlinux-${release}`,
    before: [...LIBBPF.before, LIBBPF.path, () => '/var/lib/kyanos/btf/vmlinux'],
  },
} as const satisfies Record<string, Place>

export type Loader = keyof typeof PLACES
export const LOADERS = Object.keys(PLACES) as Loader[]
