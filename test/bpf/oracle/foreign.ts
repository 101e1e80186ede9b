/*
 * The oracles on other machines. libbpf 1.1 opens only objects of its host's byte order and computes shifts by it. If a
 * (minimised) BTF does not tell the pointer size, it takes its host's. bpftool writes in its host's byte order. So the
 * s390x and i386 builds of both run in QEMU's user-mode emulator. This needs no privileges: relocate.c answers bpf(2)
 * itself, and min_core_btf of bpftool needs nothing from the kernel.
 */
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { ORACLE_CACHE, unpackForeign, unpackPackages } from './apt.ts'

const run = promisify(execFile)

/** Debian's names of a 64-bit big-endian and a 32-bit little-endian machine. */
export type Machine = 's390x' | 'i386'

/** The commands that replace `relocate` and `bpftool`. The first call of all downloads about 100 MB. */
export async function foreignOracles(
  machine: Machine,
): Promise<{ relocate: string[]; bpftool: string[] }> {
  const host = await unpackPackages(['qemu-user-static', 'lld-19'], 'host')
  const sysroot = await unpackForeign(machine, ['bpftool', 'libbpf-dev', 'libc6-dev'], machine)
  const libraries = ['lib', 'usr/lib'].map((path) => join(sysroot, path, `${machine}-linux-gnu`))
  const emulator = [
    ...[join(host, `usr/bin/qemu-${machine}-static`), '-L', sysroot],
    ...['-E', `LD_LIBRARY_PATH=${libraries.join(':')}`],
  ]
  const relocate = join(ORACLE_CACHE, `relocate-${machine}`)
  if (!existsSync(relocate)) await link(machine, host, sysroot, relocate)
  return {
    relocate: [...emulator, relocate],
    bpftool: [...emulator, join(sysroot, 'usr/sbin/bpftool')],
  }
}

/** Compiles without GCC's own files: libbpf-dev does not depend on them, and this program does not need them. */
async function link(machine: Machine, host: string, sysroot: string, output: string) {
  const triple = `${machine}-linux-gnu`
  const libraries = join(sysroot, 'usr/lib', triple)
  const start = ['Scrt1.o', 'crti.o'].map((file) => join(libraries, file))
  await run('clang-19', [
    `--target=${triple}`,
    `--sysroot=${sysroot}`,
    `--ld-path=${join(host, 'usr/lib/llvm-19/bin/ld.lld')}`,
    `-I${join(sysroot, 'usr/include', triple)}`,
    `-L${libraries}`,
    '-O1',
    '-nostdlib',
    ...start,
    join(import.meta.dirname, 'relocate.c'),
    '-lbpf',
    '-lc',
    join(libraries, 'crtn.o'),
    '-o',
    output,
  ])
}
