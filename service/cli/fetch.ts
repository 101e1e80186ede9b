import { readFile } from 'node:fs/promises'
import { canonicalArch, type KernelName } from '../../storage/index.ts'
import { type FetchOptions, fetchBtf } from '../client/client.ts'
import { thisKernel } from '../client/host.ts'
import { type FilterOptions, filterOf, type TokenOptions, tokenOf } from './input.ts'

interface FetchCommandOptions extends FilterOptions<string>, TokenOptions {
  json?: boolean
  server?: string
  wait?: boolean
  output?: string
  publicKey?: string
  maxAge?: number
  deadline?: number
}

/** `btfmill fetch`: prints the path on standard output, and the origin on standard error. Returns the exit status. */
export async function run(options: FetchCommandOptions): Promise<number> {
  const { server, wait, output, publicKey, maxAge, deadline, json } = options
  const named = filterOf(options)
  const token = await tokenOf(options)
  const settings: FetchOptions = {
    ...(Object.keys(named).length > 0 && { kernel: kernelOf(named) }),
    ...(server && { server }),
    ...(token !== undefined && { token }),
    ...(wait && { wait, onPending: sayOnce() }),
    ...(output !== undefined && { output }),
    ...(maxAge !== undefined && { maxAge }),
    ...(deadline !== undefined && { deadline: deadline * 1000 }),
    ...(publicKey !== undefined && { publicKey: await readFile(publicKey, 'utf8') }),
  }
  const fetched = await fetchBtf(settings)
  const origin = {
    kernel: "the kernel's own BTF",
    cache: 'from the cache',
    server: `from ${server}`,
  }[fetched.origin]
  console.error(`btfmill: ${origin}${fetched.sha256 ? `, SHA-256 ${fetched.sha256}` : ''}`)
  console.log(json ? JSON.stringify(fetched) : fetched.path)
  return 0
}

/** Another machine's kernel: unnamed parts are as on this machine, without what identifies this machine's build. */
function kernelOf(named: Partial<KernelName>): KernelName {
  const { distro, version, arch, release } = thisKernel()
  const kernel = { distro, version, arch, release, ...named }
  return { ...kernel, arch: canonicalArch(kernel.arch) }
}

/** Prints once that the server generates the BTF. */
function sayOnce(): (detail: string) => void {
  let said = false
  return (detail) => {
    if (!said) console.error(`btfmill: ${detail}; waiting`)
    said = true
  }
}
