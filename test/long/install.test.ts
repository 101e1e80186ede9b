// Programs with libbpf and with cilium/ebpf that take no option for BTF, on a Debian kernel without BTF in QEMU: they are
// refused, and they load after `btfmill fetch --install`.
import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'
import { boot } from '../../generator/prove/guest.ts'
import { writeInitramfs } from '../../generator/prove/initramfs.ts'
import { withScratch } from '../../generator/scratch.ts'
import { openStore } from '../../storage/index.ts'
import { btfmill, serve } from '../e2e/btfmill.ts'
import { fetchParts } from '../e2e/parts.ts'
import { generateNewest } from '../e2e/path.ts'
import { TARGETS } from '../e2e/target.ts'

const EXAMPLE = join(import.meta.dirname, '../../bpf/example')
const source = (name: string) => join(import.meta.dirname, name)
const target = TARGETS.i686
const at = { distro: 'debian', version: '12', arch: target.arch }
const run = promisify(execFile)

/** Compiles both programs and the object into `dir`, with the headers and libraries of the target. */
async function compile(sysroot: string, dir: string) {
  const headers = ['', target.multiarch].map((sub) => join(sysroot, 'usr/include', sub))
  const isystem = headers.map((path) => `-isystem ${path}`).join(' ')
  await run('make', [
    ...['-C', EXAMPLE, `OUT=${dir}`, `BPF=${target.bpf}`],
    ...[`BPF_CFLAGS=-O2 -g -nostdinc ${isystem}`, join(dir, 'exec.bpf.o')],
  ])
  await run('clang-19', [
    ...[`--target=${target.triple}`, `--sysroot=${sysroot}`, '-O2', '-static', '-fuse-ld=lld'],
    ...[source('install.c'), '-o', join(dir, 'libbpf'), '-lbpf', '-lelf', '-lz'],
  ])
  await run('go', ['build', '-o', join(dir, 'cilium'), source('install.go')], {
    timeout: 600_000,
    env: {
      ...process.env,
      ...{ GO111MODULE: 'off', GOPATH: '/usr/share/gocode', GOARCH: target.go, CGO_ENABLED: '0' },
      GOCACHE: join(dir, 'go-cache'),
    },
  })
}

t.test('programs without an option for BTF load after fetch --install', (t) =>
  withScratch(undefined, async (dir) => {
    const store = `file:${join(dir, 'store')}`
    const filter = { ...at, release: target.releases[12] }
    const { record } = await generateNewest(await openStore(store), filter)
    t.equal(record.embedded, false)
    const { release } = record.kernel
    const { sysroot, busybox, vmlinuz } = await fetchParts(target, record, dir)
    await compile(sysroot, dir)

    const server = await serve(store)
    t.teardown(() => server.stop())
    const root = join(dir, 'root')
    // Debian's cilium/ebpf is 0.9.1; libbpf reads its dialect too
    const path = await btfmill(
      ...['fetch', '--server', server.url, '--install', 'cilium', '--dialect', 'cilium-0.9.1'],
      ...['--distro', at.distro, '--distro-version', at.version, '--arch', at.arch],
      ...['--release', release, '--root', root],
    )
    const installed = path.trim().slice(root.length + 1)
    t.equal(installed, `lib/modules/${release}/vmlinux-${release}`)

    const files = new Map<string, Uint8Array>()
    for (const [name, from] of [
      ['init', source('install.sh')],
      ['bin/busybox', busybox],
      ['bin/libbpf', join(dir, 'libbpf')],
      ['bin/cilium', join(dir, 'cilium')],
      ['lib/exec.bpf.o', join(dir, 'exec.bpf.o')],
      [installed, path.trim()],
    ] as const)
      files.set(name, await readFile(from))
    const initramfs = join(dir, 'initramfs')
    await writeInitramfs(initramfs, ['bin', 'dev', 'proc', 'sys'], files)
    const guest = { machine: target, vmlinuz, initramfs }
    const lines = await boot(guest, { seconds: 300, memory: '512M' })
    const of = (prefix: string) => lines.filter((line) => line.startsWith(prefix)).join('\n')
    t.ok(lines.includes(`uname ${release}`), lines.join('\n'))
    t.notOk(lines.includes('the kernel has BTF'))
    t.match(of('[without libbpf]'), /failed to find valid kernel BTF[\s\S]*refused/)
    t.match(of('[without cilium]'), /refused: .*no BTF found for kernel/)
    t.match(of('[with libbpf]'), /\[with libbpf\] loaded$/)
    t.match(of('[with cilium]'), /\[with cilium\] loaded$/)
  }),
)
