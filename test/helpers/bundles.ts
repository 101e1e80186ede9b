// Bundles for tests: kernels of several distributions with little BTF, and what became of an archive of them.
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

/** A form that sends objects. */
export function formOf(...objects: readonly ObjectFile[]): FormData {
  const form = new FormData()
  for (const { name, bytes } of objects) form.append('object', new Blob([Buffer.from(bytes)]), name)
  return form
}

/** A kernel with the BTF of a little kernel. */
export type Shelved = Partial<Kernel> & {
  /** the little kernel's machine */
  btf?: string
  /** of its package */
  package?: string
}

/** A kernel of each way that os-release is written, and one with the BTF of another. */
export const KERNELS: readonly Shelved[] = [
  { distro: 'debian', version: '12', release: '6.1.0-9-amd64' },
  { distro: 'debian', version: '12', release: '6.1.0-10-amd64' },
  { distro: 'debian', version: 'sid', release: '7.0.1-amd64' },
  { distro: 'ubuntu', version: '20.04', release: '5.4.0-1001-aws' },
  { distro: 'centos', version: '7', release: '3.10.0-1160.el7.x86_64', btf: 'i686' },
  { distro: 'fedora', version: '31', release: '5.3.7-301.fc31.x86_64' },
]

/** Puts kernels into a store. */
export async function shelve(store: Store, kernels: readonly Shelved[]): Promise<void> {
  for (const { btf: machine = 'x86_64', package: version = '1', ...kernel } of kernels) {
    const btf = await btfOf(store, rawOf(machine))
    const { package: from } = recordOf({})
    await putRecord(store, recordOf(kernel, { btf, package: { ...from, version } }))
  }
}

const pool = new Pool({ threads: 2 })
t.teardown(() => pool.close())

/** Bundles of these kernels, in a store in memory. */
export async function shelfOf(kernels: readonly Shelved[]) {
  const store = await openStore('memory:')
  await shelve(store, kernels)
  return await bundlesOf(store)
}

/** Bundles of what is in a store. */
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

/** What programs that everybody has make of an archive. */
export const PLAIN: Readonly<Record<string, (bytes: Buffer) => Buffer>> = {
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

/** The entries of a tar, without directories. */
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
