import { readFile } from 'node:fs/promises'
import type { Dialect } from '../../bpf/index.ts'
import { canonicalArch, type KernelHints, type KernelName } from '../../storage/index.ts'
import { type FetchedBtf, type FetchOptions, fetchBtf } from '../client/client.ts'
import { thisKernel } from '../client/host.ts'
import { type InstallOptions, installBtf, uninstallBtf } from '../client/install.ts'
import type { Loader } from '../client/place.ts'
import {
  checkKey,
  type FilterOptions,
  filterOf,
  type ServerTokenOptions,
  tokenOf,
} from './input.ts'
import { printable } from './output.ts'

interface FetchCommandOptions extends FilterOptions<string>, ServerTokenOptions {
  json?: boolean
  server?: string
  pack?: string
  wait?: boolean
  partial?: boolean
  output?: string
  publicKey?: string
  maxAge?: number
  deadline?: number
  dialect?: Dialect
  install?: Loader
  uninstall?: Loader
  root?: string
}

/** `btfmill fetch`: prints the path on standard output, and the origin on standard error. Returns the exit status. */
export async function run(options: FetchCommandOptions): Promise<number> {
  const { pack, wait, output, publicKey, maxAge, deadline, dialect, root, json } = options
  const { partial } = options
  // BTFMILL_SERVER may be set for all commands: a pack precedes it
  const server = pack === undefined ? options.server : undefined
  const named = filterOf(options)
  const kernel = Object.keys(named).length > 0 ? kernelOf(named, root) : undefined
  const release = kernel?.release ?? thisKernel(root).release
  if (options.uninstall) return await uninstall({ loader: options.uninstall, release, root }, json)
  const token = await tokenOf(options)
  if (publicKey !== undefined) await checkKey(publicKey)
  const settings: FetchOptions = {
    ...(kernel && { kernel }),
    ...(dialect && { dialect }),
    ...(root !== undefined && { root }),
    ...(server && { server }),
    ...(pack !== undefined && { pack }),
    ...(token !== undefined && { token }),
    ...(wait && { wait, onPending: sayOnce() }),
    ...(partial && { partial }),
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
    pack: `from ${pack}`,
  }[fetched.origin]
  const { found, sha256 } = fetched
  const other = found && found.by !== 'name' ? `, found by ${found.by} as ${found.name}` : ''
  console.error(`btfmill: ${origin}${other}${sha256 ? `, SHA-256 ${sha256}` : ''}`)
  if (fetched.partial !== undefined)
    console.error(
      `btfmill: warning: the BTF is partial (${printable(fetched.partial)}): it lacks many types that the kernel has`,
    )
  const result = options.install
    ? await install(fetched, { loader: options.install, release, root })
    : fetched
  console.log(json ? JSON.stringify(result) : result.path)
  return 0
}

/** Puts the file where a loader looks, unless the kernel has BTF of its own: all loaders read that first. */
async function install(fetched: FetchedBtf, options: InstallOptions): Promise<FetchedBtf> {
  const { loader } = options
  if (fetched.origin === 'kernel') {
    console.error(`btfmill: ${loader} reads the kernel's own BTF first: nothing to install`)
    return fetched
  }
  const { path, before } = await installBtf(await readFile(fetched.path), options)
  for (const other of before)
    console.error(`btfmill: warning: ${loader} reads ${other} before ${path}`)
  return { ...fetched, path }
}

async function uninstall(options: InstallOptions, json = false): Promise<number> {
  const path = await uninstallBtf(options)
  console.error(`btfmill: ${path === undefined ? 'nothing is installed' : `removed ${path}`}`)
  if (json) console.log(JSON.stringify({ removed: path ?? null }))
  return 0
}

/** Another machine's kernel: unnamed parts are as on this machine, without what identifies this machine's build. */
function kernelOf(named: Partial<KernelName>, root: string | undefined): KernelName & KernelHints {
  const { distro, version, arch, release, like, codename } = thisKernel(root)
  const hints =
    named.distro === undefined ? { ...(like && { like }), ...(codename && { codename }) } : {}
  const kernel = { distro, version, arch, release, ...hints, ...named }
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
