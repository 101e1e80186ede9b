import { readFile } from 'node:fs/promises'
import type { KernelFilter } from '../../storage/index.ts'
import { type FetchOptions, fetchBtf } from '../client/client.ts'
import { thisKernel } from '../client/host.ts'
import { type CommonOptions, filterOf } from './filter.ts'

interface FetchCommandOptions extends CommonOptions, KernelFilter {
  server?: string
  wait?: boolean
  output?: string
  publicKey?: string
}

/** `btfmill fetch`: the path on standard output, what was done on standard error. Returns the exit status. */
export async function run(options: FetchCommandOptions): Promise<number> {
  const { server, wait, output, publicKey, json } = options
  const named = filterOf(options)
  const settings: FetchOptions = {
    ...(Object.keys(named).length > 0 && { kernel: kernelOf(named) }),
    ...(server !== undefined && { server }),
    ...(wait && { wait, onPending: told() }),
    ...(output !== undefined && { output }),
    ...(publicKey !== undefined && { publicKey: await readFile(publicKey, 'utf8') }),
  }
  const fetched = await fetchBtf(settings)
  const said = {
    kernel: "the kernel's own BTF",
    cache: 'from the cache',
    server: `from ${server}`,
  }[fetched.origin]
  console.error(`btfmill: ${said}${fetched.sha256 ? `, SHA-256 ${fetched.sha256}` : ''}`)
  console.log(json ? JSON.stringify(fetched) : fetched.path)
  return 0
}

/** Another machine's kernel: what is not named is as on this one, but for what tells this one's build. */
function kernelOf(named: KernelFilter) {
  const { distro, version, arch, release } = thisKernel()
  return { distro, version, arch, release, ...named }
}

/** Says once that it is being made. */
function told(): (detail: string) => void {
  let said = false
  return (detail) => {
    if (!said) console.error(`btfmill: ${detail}; waiting`)
    said = true
  }
}
