/*
 * The oracles on a big-endian machine. libbpf 1.1 opens only objects of its host's byte order, and computes shifts by
 * it; bpftool writes in it. So the s390x builds of both run in QEMU's user-mode emulator, which needs no privilege:
 * relocate.c answers bpf(2) itself, and bpftool's min_core_btf asks for nothing of the kernel.
 */
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { ORACLE_CACHE, unpackForeign, unpackPackages } from './apt.ts'

const run = promisify(execFile)

/** Commands that stand for `relocate` and `bpftool`; the first call of all downloads some 100 MB. */
export async function bigEndianOracles(): Promise<{ relocate: string[]; bpftool: string[] }> {
  const host = await unpackPackages(['qemu-user-static', 'lld-19'], 'host')
  const sysroot = await unpackForeign('s390x', ['bpftool', 'libbpf-dev', 'libc6-dev'], 's390x')
  const emulator = [join(host, 'usr/bin/qemu-s390x-static'), '-L', sysroot]
  const relocate = join(ORACLE_CACHE, 'relocate-s390x')
  if (!existsSync(relocate)) await link(host, sysroot, relocate)
  return {
    relocate: [...emulator, relocate],
    bpftool: [...emulator, join(sysroot, 'usr/sbin/bpftool')],
  }
}

/** Without GCC's own files, which libbpf-dev does not bring and this program does not need. */
async function link(host: string, sysroot: string, output: string): Promise<void> {
  const libraries = join(sysroot, 'usr/lib/s390x-linux-gnu')
  const start = ['Scrt1.o', 'crti.o'].map((file) => join(libraries, file))
  await run('clang-19', [
    '--target=s390x-linux-gnu',
    `--sysroot=${sysroot}`,
    `--ld-path=${join(host, 'usr/lib/llvm-19/bin/ld.lld')}`,
    `-I${join(sysroot, 'usr/include/s390x-linux-gnu')}`,
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
