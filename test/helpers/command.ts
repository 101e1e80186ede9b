// Runs btfmill to its end, whatever its exit status, and makes stores of little kernels for it.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { openStore, putRecord } from '../../storage/index.ts'
import { littleKernels } from './core.ts'
import { btfOf, recordOf } from './test-service.ts'

export const MAIN = join(import.meta.dirname, '../../service/cli/main.ts')

export interface Ended {
  status: number | null
  stdout: string
  stderr: string
}

/** Runs `btfmill` with these arguments; killed after a minute. */
export async function run(...args: string[]): Promise<Ended> {
  const child = spawn(process.execPath, [MAIN, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: 60_000,
  })
  const [[status], stdout, stderr] = await Promise.all([
    once(child, 'close'),
    text(child.stdout),
    text(child.stderr),
  ])
  return { status, stdout, stderr }
}

/** A kernel of Debian with the BTF of a little kernel. */
export interface Stored {
  /** the little kernel's */
  machine: string
  /** of the kernel, where it is another */
  arch?: string
  release: string
  /** of its package */
  version?: string
}

/** Puts little kernels into a store in a directory and gives its URL. */
export async function storeOf(directory: string, kernels: readonly Stored[]): Promise<string> {
  const url = `file:${directory}`
  const store = await openStore(url)
  for (const { machine, arch = machine, release, version = '6.1.1-1' } of kernels) {
    const btf = await btfOf(store, await readFile(littleKernels().get(machine)!))
    const { package: from } = recordOf({})
    await putRecord(store, recordOf({ arch, release }, { btf, package: { ...from, version } }))
  }
  return url
}
