// Cross-compiles bpf/example for a target: with the example's own Makefile, clang and lld, and the target's headers and
// static libraries from a sysroot. The machine needs no multiarch set-up.
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { btfmill, COMMAND } from './btfmill.ts'
import type { Target } from './target.ts'

const EXAMPLE = join(import.meta.dirname, '../../bpf/example')
/** lld links for s390x since LLVM 18 */
const CLANG = 'clang-19'

export const btfFetch = join(EXAMPLE, 'btf-fetch')

export interface Agent {
  /** path of the agent, a static ELF of the target */
  program: string
  /** path of the agent in Go */
  go?: string
  /** paths of the CO-RE object and of the object for one kernel, in the target's byte order */
  objects: string[]
}

/** Builds agent.go into `dir` with Debian's cilium/ebpf, and returns its path. Takes a minute. */
export async function buildGoAgent(target: Target, dir: string): Promise<string> {
  const program = join(dir, 'agent-go')
  await promisify(execFile)('go', ['build', '-o', program, join(EXAMPLE, 'agent.go')], {
    timeout: 600_000,
    env: {
      ...process.env,
      GO111MODULE: 'off',
      GOPATH: '/usr/share/gocode',
      GOCACHE: join(dir, 'go-cache'),
      GOARCH: target.go,
      CGO_ENABLED: '0',
    },
  })
  return program
}

/** The kernel whose BTF is in the agent's bundle, and for which one object is built without CO-RE. */
export interface AgentKernel {
  distro: string
  version: string
  arch: string
  release: string
  buildId: string
  /** path of its BTF */
  btf: string
  /** URL of the store that holds this BTF */
  store: string
}

/**
 * Builds the agent into `dir`, with warnings as errors. It contains a bundle with the kernel's BTF, and one of its
 * objects is for that kernel alone. Rejects with the output of make.
 */
export async function buildAgent(
  target: Target,
  kernel: AgentKernel,
  sysroot: string,
  dir: string,
): Promise<Agent> {
  const strict = '-O2 -g -Wall -Wextra -Wno-unused-parameter -Werror'
  const headers = ['', target.multiarch].map((sub) => join(sysroot, 'usr/include', sub))
  const run = (...args: string[]) =>
    promisify(execFile)('make', ['-C', EXAMPLE, `OUT=${dir}`, ...args], { timeout: 120_000 })
  const bpf = [
    `BPF=${target.bpf}`,
    `BPF_CFLAGS=${strict} -nostdinc ${headers.map((path) => `-isystem ${path}`).join(' ')}`,
  ]
  const object = join(dir, 'exec.bpf.o')
  await run(...bpf, object)
  const bundle = join(dir, 'min_core_btfs.tar.gz')
  await packBundle(object, kernel, bundle)
  await run(
    ...bpf,
    ...[`CC=${CLANG} --target=${target.triple} --sysroot=${sysroot}`, `CFLAGS=${strict}`],
    ...['LDFLAGS=-static -fuse-ld=lld', `BUNDLE=${bundle}`],
    ...[`KERNEL=${kernel.btf}`, `BUILD_ID=${kernel.buildId}`, `BTFMILL=${COMMAND.join(' ')}`],
    ...['all', 'kernel'],
  )
  return {
    program: join(dir, 'agent'),
    objects: [object, join(dir, `exec.${kernel.buildId}.bpf.o`)],
  }
}

/** Packs a bundle of one kernel, with only the BTF that an object needs. */
async function packBundle(object: string, kernel: AgentKernel, file: string): Promise<void> {
  const { store, distro, version, arch, release } = kernel
  const named = [
    '--distro',
    distro,
    '--distro-version',
    version,
    '--arch',
    arch,
    '--release',
    release,
  ]
  const wanted = ['--profile', 'bcc', '--object', object, '--unsupported', 'fail']
  await btfmill('export', '--store', store, ...wanted, ...named, '-o', file)
}
