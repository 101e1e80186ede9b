// The architectures of guests. Everything that differs between them is in this table: to add one, add a row.

export interface Target {
  /** `uname -m` */
  arch: string
  /** Debian's name */
  debian: string
  /** clang's `--target=` */
  triple: string
  /** Debian's directory below /usr/include and /usr/lib */
  multiarch: string
  /** clang's `-target` for BPF with the same byte order */
  bpf: 'bpfel' | 'bpfeb'
  /** Go's `GOARCH=` */
  go: string
  /** by Debian's version: globs for the `uname -r` of kernels without BTF that boot in QEMU */
  releases: Readonly<Record<string, string>>
  /** kernel modules of the network card, in load order */
  modules: readonly string[]
  /** QEMU's program, its arguments for machine and network card, and the console device */
  qemu: { program: string; args: readonly string[]; console: string }
}

export const TARGETS = {
  i686: {
    arch: 'i686',
    debian: 'i386',
    triple: 'i686-linux-gnu',
    multiarch: 'i386-linux-gnu',
    bpf: 'bpfel',
    go: '386',
    releases: { 11: '5.10.0-3[02]-686-pae', 12: '6.1.0-*[0-9]-686-pae' },
    modules: ['e1000'],
    qemu: {
      program: 'qemu-system-i386',
      args: ['-machine', 'pc', '-device', 'e1000,netdev=net,romfile='],
      console: 'ttyS0',
    },
  },
  s390x: {
    arch: 's390x',
    debian: 's390x',
    triple: 's390x-linux-gnu',
    multiarch: 's390x-linux-gnu',
    bpf: 'bpfeb',
    go: 's390x',
    releases: { 12: '6.1.0-*[0-9]-s390x' },
    modules: ['failover', 'net_failover', 'virtio_net'],
    qemu: {
      program: 'qemu-system-s390x',
      args: ['-machine', 's390-ccw-virtio', '-device', 'virtio-net-ccw,netdev=net'],
      console: 'ttysclp0',
    },
  },
} as const satisfies Record<string, Target>
