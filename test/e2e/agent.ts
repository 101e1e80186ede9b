// Builds bpf/example for a target, on this machine and without its multiarch set-up: the target's own headers and
// static libraries come from a sysroot, clang and lld do the rest.
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Target } from './target.ts'

const EXAMPLE = join(import.meta.dirname, '../../bpf/example')

export interface Agent {
  /** path of the agent, a static ELF of the target */
  program: string
  /** path of the CO-RE object, in the target's byte order */
  object: string
}

/** Compiles agent.c and exec.bpf.c into `dir`, with warnings as errors. Rejects with clang's messages. */
export async function buildAgent(target: Target, sysroot: string, dir: string): Promise<Agent> {
  const program = join(dir, 'agent')
  const object = join(dir, 'exec.bpf.o')
  const strict = ['-O2', '-Wall', '-Wextra', '-Wno-unused-parameter', '-Werror']
  const headers = ['', target.multiarch].map((sub) => join(sysroot, 'usr/include', sub))
  await clang([
    ...['-target', target.bpf, '-g', ...strict, '-nostdinc'],
    ...headers.flatMap((header) => ['-isystem', header]),
    ...['-c', join(EXAMPLE, 'exec.bpf.c'), '-o', object],
  ])
  await clang([
    ...[`--target=${target.triple}`, `--sysroot=${sysroot}`, '-fuse-ld=lld', '-static', ...strict],
    ...[join(EXAMPLE, 'agent.c'), '-o', program, '-lbpf', '-lelf', '-lz'],
  ])
  return { program, object }
}

const clang = (args: string[]) => promisify(execFile)('clang', args, { timeout: 60_000 })

export const btfFetch = join(EXAMPLE, 'btf-fetch')
