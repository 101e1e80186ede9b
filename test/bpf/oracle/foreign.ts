/*
 * The oracles on other machines. libbpf 1.1 opens only objects of its host's byte order, computes shifts by it, and
 * gives pointers its host's size where a (minimised) BTF does not tell; bpftool writes in its host's byte order. So the
 * s390x and i386 builds of both run in QEMU's user-mode emulator, which needs no privilege: relocate.c answers bpf(2)
 * itself, and bpftool's min_core_btf asks for nothing of the kernel.
 */
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { ORACLE_CACHE, unpackForeign, unpackPackages } from './apt.ts'

const run = promisify(execFile)

/** Debian's names: a big-endian machine of 64 bits, a little-endian one of 32. */
export type Machine = 's390x' | 'i386'

/** Commands that stand for `relocate` and `bpftool`; the first call of all downloads some 100 MB. */
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

/** Without GCC's own files, which libbpf-dev does not bring and this program does not need. */
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
