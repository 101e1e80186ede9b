/*
 * The machines that can be booted in QEMU, by architecture (`uname -m`). Everything that differs between them is in this
 * table: to add one, add a row.
 */
import { GeneratorError } from '../error.ts'

export interface Machine {
  /** Debian's name of the architecture */
  debian: string
  /** clang's `--target=` */
  triple: string
  /** Debian's directory below /usr/include and /usr/lib */
  multiarch: string
  /** the kernel's name of its directory below arch/ */
  asm: string
  /** `e_machine` of the programs that its kernels run */
  runs: readonly number[]
  /** `process.arch` of the machines whose KVM runs its kernels */
  kvm: NodeJS.Architecture
  qemu: {
    program: string
    /** Debian's package of the program */
    package: string
    args: readonly string[]
    /** without KVM */
    tcgArgs?: readonly string[]
    /** the device of the console */
    console: string
  }
}

/** include/uapi/linux/elf-em.h */
const [EM_386, EM_S390, EM_X86_64, EM_AARCH64] = [3, 22, 62, 183]

export const MACHINES = {
  x86_64: {
    debian: 'amd64',
    triple: 'x86_64-linux-gnu',
    multiarch: 'x86_64-linux-gnu',
    asm: 'x86',
    runs: [EM_X86_64, EM_386],
    kvm: 'x64',
    qemu: {
      program: 'qemu-system-x86_64',
      package: 'qemu-system-x86',
      args: ['-machine', 'pc'],
      console: 'ttyS0',
    },
  },
  i686: {
    debian: 'i386',
    triple: 'i686-linux-gnu',
    multiarch: 'i386-linux-gnu',
    asm: 'x86',
    runs: [EM_386],
    kvm: 'x64',
    qemu: {
      program: 'qemu-system-i386',
      package: 'qemu-system-x86',
      args: ['-machine', 'pc'],
      console: 'ttyS0',
    },
  },
  aarch64: {
    debian: 'arm64',
    triple: 'aarch64-linux-gnu',
    multiarch: 'aarch64-linux-gnu',
    asm: 'arm64',
    runs: [EM_AARCH64],
    kvm: 'arm64',
    qemu: {
      program: 'qemu-system-aarch64',
      package: 'qemu-system-arm',
      args: ['-machine', 'virt', '-cpu', 'max'],
      // the later -cpu counts; QEMU emulates the standard algorithm of pointer authentication very slowly
      tcgArgs: ['-cpu', 'max,pauth-impdef=on'],
      console: 'ttyAMA0',
    },
  },
  s390x: {
    debian: 's390x',
    triple: 's390x-linux-gnu',
    multiarch: 's390x-linux-gnu',
    asm: 's390',
    runs: [EM_S390],
    kvm: 's390x',
    qemu: {
      program: 'qemu-system-s390x',
      package: 'qemu-system-misc',
      args: ['-machine', 's390-ccw-virtio'],
      console: 'ttysclp0',
    },
  },
} as const satisfies Record<string, Machine>

/** The machine of an architecture. Errors: `unsupported_machine`. */
export function machineOf(arch: string): Machine {
  const known: Readonly<Record<string, Machine>> = MACHINES
  if (Object.hasOwn(known, arch)) return known[arch]!
  const message = `no guest for the architecture ${arch}: expected one of ${Object.keys(known).join(', ')}`
  throw new GeneratorError('unsupported_machine', message)
}
