// Bundles for tests: kernels of several distributions with small BTF, and readers for the archives.
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { basename } from 'node:path'
import { buffer } from 'node:stream/consumers'
import t from 'tap'
import { extract } from 'tar-stream'
import { Bundle, type BundleOptions, type BundleResult } from '../../service/bundle/bundle.ts'
import type { ObjectFile } from '../../service/bundle/member.ts'
import { Pool } from '../../service/threads/pool.ts'
import { Catalog, type Kernel, openStore, putRecord, type Store } from '../../storage/index.ts'
import { coreObjects, littleKernels } from './core.ts'
import { btfOf, recordOf } from './test-service.ts'

export const rawOf = (machine: string): Buffer => readFileSync(littleKernels().get(machine)!)

export function objectFile(name: string, order: 'el' | 'eb' = 'el'): ObjectFile {
  const path = coreObjects(order).get(name)!
  return { name: basename(path), bytes: readFileSync(path) }
}

/** Returns a multipart form with objects. */
export function formOf(...objects: readonly ObjectFile[]): FormData {
  const form = new FormData()
  for (const { name, bytes } of objects) form.append('object', new Blob([Buffer.from(bytes)]), name)
  return form
}

/** A kernel in the store, with the BTF of a test kernel. */
export type StoredKernel = Partial<Kernel> & {
  /** machine of the test kernel; default: x86_64 */
  btf?: string
  /** version of its package; default: 1 */
  package?: string
}

/** One kernel for each style of os-release. Some share their BTF. */
export const KERNELS: readonly StoredKernel[] = [
  { distro: 'debian', version: '12', release: '6.1.0-9-amd64' },
  { distro: 'debian', version: '12', release: '6.1.0-10-amd64' },
  { distro: 'debian', version: 'sid', release: '7.0.1-amd64' },
  { distro: 'ubuntu', version: '20.04', release: '5.4.0-1001-aws' },
  { distro: 'centos', version: '7', release: '3.10.0-1160.el7.x86_64', btf: 'i686' },
  { distro: 'fedora', version: '31', release: '5.3.7-301.fc31.x86_64' },
]

/** Puts the records and BTF of kernels into a store. */
export async function putKernels(store: Store, kernels: readonly StoredKernel[]): Promise<void> {
  for (const { btf: machine = 'x86_64', package: version = '1', ...kernel } of kernels) {
    const btf = await btfOf(store, rawOf(machine))
    const { package: defaults } = recordOf({})
    await putRecord(store, recordOf(kernel, { btf, package: { ...defaults, version } }))
  }
}

const pool = new Pool({ threads: 2 })
t.teardown(() => pool.close())

/** Returns functions that bundle these kernels, from a store in memory. */
export async function bundlesOfKernels(kernels: readonly StoredKernel[]) {
  const store = await openStore('memory:')
  await putKernels(store, kernels)
  return await bundlesOf(store)
}

/** Returns functions that bundle the kernels in a store. */
export async function bundlesOf(store: Store) {
  const catalog = await Catalog.open(store)
  const open = (options: Partial<BundleOptions>) =>
    Bundle.open({ store, catalog, pool, profile: 'tree', filter: {}, ...options })
  const pack = async (options: Partial<BundleOptions>) => packed(await open(options))
  return { store, open, pack }
}

export interface Packed extends BundleResult {
  archive: Buffer
}

async function packed(bundle: Bundle): Promise<Packed> {
  const archive = await buffer(bundle.archive())
  return { archive, ...(await bundle.result) }
}

/** Decompressors: the standard programs. */
export const DECOMPRESSORS: Readonly<Record<string, (bytes: Buffer) => Buffer>> = {
  none: (bytes) => bytes,
  gz: (input) => execFileSync('gzip', ['-dc'], { input }),
  xz: (input) => execFileSync('xz', ['-dc'], { input }),
  zstd: (input) => execFileSync('zstd', ['-dcq'], { input }),
}

export interface TarMember {
  name: string
  type: string
  link: string | undefined
  bytes: Buffer
}

/** Returns the entries of a tar, without directories. */
export async function membersOf(tar: Buffer): Promise<TarMember[]> {
  const reader = extract()
  reader.end(tar)
  const members: TarMember[] = []
  for await (const entry of reader) {
    const { name, type, linkname } = entry.header
    const bytes = await buffer(entry as unknown as AsyncIterable<Buffer>)
    if (type !== 'directory')
      members.push({ name, type: type ?? '', link: linkname ?? undefined, bytes })
  }
  return members
}
