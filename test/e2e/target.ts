// The machines of guests that run an agent: those of the product, with what the agent and its network need.
import { MACHINES, type Machine } from '../../generator/prove/machine.ts'

export interface Target extends Machine {
  /** `uname -m` */
  arch: string
  /** clang's `-target` for BPF with the same byte order */
  bpf: 'bpfel' | 'bpfeb'
  /** Go's `GOARCH=` */
  go: string
  /** by Debian's version: globs for the `uname -r` of kernels without BTF that boot in QEMU */
  releases: Readonly<Record<string, string>>
  /** kernel modules of the network card, in load order */
  modules: readonly string[]
  /** QEMU's arguments for the network card */
  network: readonly string[]
}

export const TARGETS = {
  i686: {
    ...MACHINES.i686,
    arch: 'i686',
    bpf: 'bpfel',
    go: '386',
    releases: { 11: '5.10.0-3[02]-686-pae', 12: '6.1.0-*[0-9]-686-pae' },
    modules: ['e1000'],
    network: ['-device', 'e1000,netdev=net,romfile='],
  },
  s390x: {
    ...MACHINES.s390x,
    arch: 's390x',
    bpf: 'bpfeb',
    go: 's390x',
    releases: { 12: '6.1.0-*[0-9]-s390x' },
    modules: ['failover', 'net_failover', 'virtio_net'],
    network: ['-device', 'virtio-net-ccw,netdev=net'],
  },
} as const satisfies Record<string, Target>
