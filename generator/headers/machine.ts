/*
 * Architectures, as data: how the kernel's Makefiles (arch/…/Makefile) call the compiler where layouts or the headers'
 * own checks depend on it. The headers' kbuild could tell, but it is a program that came with the package, and nothing
 * of a package is run.
 */

export interface HeaderMachine {
  /** `uname -m` */
  arch: string
  /** the folder below `arch/` */
  folder: string
  /** options that are all `y`, without `CONFIG_` */
  needs: readonly string[]
  /** options of which none is `y` */
  lacks?: readonly string[]
  byteOrder: 'little' | 'big'
  pointerSize: 4 | 8
  /** the target in names of cross compilers, and of clang's `--target` */
  target: string
  /** options of both compilers */
  options: readonly string[]
  gcc?: readonly string[]
  clang?: readonly string[]
}

export const MACHINES: readonly HeaderMachine[] = [
  {
    arch: 'x86_64',
    folder: 'x86',
    needs: ['X86_64'],
    byteOrder: 'little',
    pointerSize: 8,
    target: 'x86_64-linux-gnu',
    options: [
      ...['-m64', '-mno-red-zone', '-mcmodel=kernel', '-DCC_USING_FENTRY'],
      ...['-mno-sse', '-mno-mmx', '-mno-sse2', '-mno-avx', '-mno-80387'],
    ],
  },
  {
    arch: 'i686',
    folder: 'x86',
    needs: ['X86_32'],
    byteOrder: 'little',
    pointerSize: 4,
    target: 'i686-linux-gnu',
    options: [
      ...['-m32', '-march=i686', '-mregparm=3', '-DCC_USING_FENTRY'],
      ...['-mno-sse', '-mno-mmx', '-mno-sse2', '-mno-avx', '-mno-80387'],
    ],
    gcc: ['-freg-struct-return'],
  },
  {
    arch: 'aarch64',
    folder: 'arm64',
    needs: ['ARM64'],
    lacks: ['CPU_BIG_ENDIAN'],
    byteOrder: 'little',
    pointerSize: 8,
    target: 'aarch64-linux-gnu',
    options: [
      ...['-mlittle-endian', '-mgeneral-regs-only', '-DKASAN_SHADOW_SCALE_SHIFT='],
      ...['-DARM64_ASM_ARCH="armv8-a"', '-DCC_USING_PATCHABLE_FUNCTION_ENTRY'],
    ],
    gcc: ['-mabi=lp64'],
  },
  {
    arch: 'armv7l',
    folder: 'arm',
    needs: ['ARM', 'CPU_V7'],
    lacks: ['CPU_BIG_ENDIAN'],
    byteOrder: 'little',
    pointerSize: 4,
    target: 'arm-linux-gnueabi',
    options: [
      ...['-mlittle-endian', '-mabi=aapcs-linux', '-march=armv7-a', '-msoft-float', '-marm'],
      ...['-D__LINUX_ARM_ARCH__=7', '-include', 'asm/unified.h'],
    ],
  },
  {
    arch: 'armv5tel',
    folder: 'arm',
    needs: ['ARM', 'CPU_V6'],
    lacks: ['CPU_BIG_ENDIAN', 'CPU_V7'],
    byteOrder: 'little',
    pointerSize: 4,
    target: 'arm-linux-gnueabi',
    options: [
      ...['-mlittle-endian', '-mabi=aapcs-linux', '-march=armv6', '-msoft-float', '-marm'],
      ...['-D__LINUX_ARM_ARCH__=6', '-include', 'asm/unified.h'],
    ],
  },
  {
    arch: 'ppc64le',
    folder: 'powerpc',
    needs: ['PPC64', 'CPU_LITTLE_ENDIAN'],
    byteOrder: 'little',
    pointerSize: 8,
    target: 'powerpc64le-linux-gnu',
    options: ['-m64', '-mlittle-endian', '-mcpu=power8', '-msoft-float'],
    gcc: ['-mabi=elfv2', '-mno-string', '-mno-multiple'],
  },
  {
    arch: 's390x',
    folder: 's390',
    needs: ['S390'],
    byteOrder: 'big',
    pointerSize: 8,
    target: 's390x-linux-gnu',
    options: ['-m64', '-march=z13', '-msoft-float', '-mbackchain', '-D__PACK_STACK'],
    gcc: ['-mpacked-stack'],
  },
  {
    arch: 'riscv64',
    folder: 'riscv',
    needs: ['RISCV', '64BIT'],
    byteOrder: 'little',
    pointerSize: 8,
    target: 'riscv64-linux-gnu',
    options: [
      ...['-mabi=lp64', '-march=rv64imac', '-mcmodel=medany', '-mno-save-restore'],
      '-DCC_USING_PATCHABLE_FUNCTION_ENTRY',
    ],
  },
  {
    arch: 'loongarch64',
    folder: 'loongarch',
    needs: ['LOONGARCH', '64BIT'],
    byteOrder: 'little',
    pointerSize: 8,
    target: 'loongarch64-linux-gnu',
    options: ['-mabi=lp64s', '-DCC_USING_PATCHABLE_FUNCTION_ENTRY'],
  },
]

/** Options for all machines (Makefile, scripts/Makefile.lib). */
export const COMMON_OPTIONS: readonly string[] = [
  ...['-D__KERNEL__', '-std=gnu11', '-O2', '-w', '-Wfatal-errors'],
  ...['-fshort-wchar', '-funsigned-char', '-fno-common', '-fno-strict-aliasing', '-fms-extensions'],
  ...['-fno-PIE', '-fno-stack-protector', '-ffreestanding', '-fno-asynchronous-unwind-tables'],
  ...['-DKBUILD_MODNAME="headers"', '-DKBUILD_BASENAME="headers"', '-DKBUILD_MODFILE="headers"'],
  '-D__KBUILD_MODNAME=kmod_headers',
  ...['-gdwarf-4', '-fno-eliminate-unused-debug-types'],
]
