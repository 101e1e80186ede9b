// npm run bench:pack -- STORE: packs all kernels of a store as the command `pack` does, into memory. Prints the size of the
// packs against .btf.tar.xz, and what it takes to make and to read them. `--archives=N` makes only N archives, of kernels
// spread over all, and estimates the others by their blobs: xz takes seconds for each. Times of packing are CPU,
// those of reading are what one waits.
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { isDamaged } from '../../service/bundle/member.ts'
import type { Available } from '../../service/kernel/lookup.ts'
import { packKernels } from '../../service/pack/packing.ts'
import {
  blobKey,
  Catalog,
  getBlob,
  openStore,
  packArchive,
  packsOf,
  type Store,
  type StoredPack,
} from '../../storage/index.ts'
import { median, nodeAsStarted, table } from './measure.ts'

/** A store whose packs are in memory; all else is read from another one. */
async function withPacksInMemory(store: Store): Promise<Store> {
  const packs = await openStore('memory:')
  const of = (key: string) => (key.startsWith('packs/') ? packs : store)
  return {
    url: store.url,
    get: (key, range) => of(key).get(key, range),
    head: (key) => of(key).head(key),
    put: (key, ...rest) => packs.put(key, ...rest),
    list: (prefix) => of(prefix).list(prefix),
    delete: async (key) => await packs.delete(key),
  }
}

/** Milliseconds of CPU. */
function cpu(): number {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1000
}

const sum = (numbers: readonly number[]) => numbers.reduce((all, number) => all + number, 0)
const mb = (bytes: number) => (bytes / 1e6).toFixed(2)

export async function benchStore(url: string, archives: number): Promise<void> {
  const store = await withPacksInMemory(await openStore(url, { create: false }))
  const catalog = await Catalog.open(store)
  const records = [...catalog.list()].map(({ record }) => record)
  const available = records.filter((record): record is Available => record.btf !== undefined)
  const kernels = [...new Map(available.map((one) => [one.btf.sha256, one])).values()]
  const before = cpu()
  const options = { store, catalog, filter: {}, keep: 'all', isDamaged } as const
  const read = ({ btf }: Available) => getBlob(store, btf.sha256)
  for await (const event of packKernels({ ...options, read }))
    if (event.state !== 'packed') throw new Error(`${event.state}: ${JSON.stringify(event)}`)
  const packing = cpu() - before
  const packs = packsOf(store).list()
  const size = sum(packs.map(({ info }) => info.size))
  const blobs = await Promise.all(
    kernels.map(async ({ btf }) => (await store.head(blobKey(btf.sha256))).size),
  )
  const xz = await archivesOf(store, kernels, blobs, archives)
  const members = packs.flatMap((pack) => pack.members.members)
  const lengths = members.flatMap(({ parent, length }) => (parent === undefined ? [] : [length]))
  const times = { ...(await readings(packs)), blobs: await blobTime(store, kernels) }
  console.log(
    table([
      ['packs of a store', ''],
      ['kernels with different BTF', String(members.length)],
      ['packs', String(packs.length)],
      ['MB of packs', mb(size)],
      ['MB of blobs', mb(sum(blobs))],
      [`MB of .btf.tar.xz${archives < kernels.length ? `, by ${archives} of them` : ''}`, mb(xz)],
      ['packs / .btf.tar.xz', (size / xz).toFixed(4)],
      ['roots', String(members.length - lengths.length)],
      ['bytes of an added kernel, median', String(median(lengths))],
      ['bytes of an added kernel, mean', (sum(lengths) / lengths.length).toFixed(0)],
      ['kernels over 64 KiB', String(lengths.filter((length) => length > 65536).length)],
      ['CPU ms: pack a kernel, and read it back', (packing / members.length).toFixed(0)],
      ['ms: read a kernel alone, median', median(times.alone).toFixed(0)],
      ['ms: read a kernel alone, most', Math.max(...times.alone).toFixed(0)],
      ['ms: read all in sequence, each', times.sequence.toFixed(1)],
      ['ms: read blobs in sequence, each', times.blobs.toFixed(1)],
      ['MB above the process: the longest chain', mb(await memory(times.longest))],
    ]),
  )
}

/** Bytes of the archives of all kernels. */
async function archivesOf(
  store: Store,
  kernels: readonly Available[],
  blobs: readonly number[],
  count: number,
): Promise<number> {
  const step = Math.max(kernels.length / count, 1)
  let [made, ofBlobs] = [0, 0]
  for (let at = 0; at < kernels.length; at += step) {
    const { kernel, btf } = kernels[Math.floor(at)]!
    const archive = await packArchive(kernel.release, await getBlob(store, btf.sha256))
    made += archive.length
    ofBlobs += blobs[Math.floor(at)]!
  }
  return (made / ofBlobs) * sum(blobs)
}

interface Longest {
  pack: StoredPack
  sha256: string
}

/** Reads each kernel alone, the lesser of two times, and then all in sequence. */
async function readings(packs: readonly StoredPack[]) {
  const alone: number[] = []
  let [sequence, most] = [0, 0]
  let longest: Longest | undefined
  for (const pack of packs) {
    for (const { sha256 } of pack.members.members) {
      let least = Number.POSITIVE_INFINITY
      for (let pass = 0; pass < 2; pass++) {
        const start = performance.now()
        await pack.members.read(sha256)
        least = Math.min(least, performance.now() - start)
      }
      alone.push(least)
      if (least <= most) continue
      most = least
      longest = { pack, sha256 }
    }
    const start = performance.now()
    for await (const { result } of pack.members.readAll()) if (result instanceof Error) throw result
    sequence += performance.now() - start
  }
  return { alone, sequence: sequence / alone.length, longest: longest! }
}

/** Milliseconds to read a blob and compare its digest, with all blobs in sequence. */
async function blobTime(store: Store, kernels: readonly Available[]): Promise<number> {
  const start = performance.now()
  for (const { btf } of kernels) await getBlob(store, btf.sha256)
  return (performance.now() - start) / kernels.length
}

/** Bytes by which a process that reads one kernel out of a pack grows, beyond what it has when it is ready to. */
async function memory({ pack, sha256 }: Longest): Promise<number> {
  const directory = mkdtempSync(join(tmpdir(), 'bench-pack-'))
  try {
    const file = join(directory, 'pack')
    writeFileSync(file, await buffer(await pack.open()))
    const script = join(import.meta.dirname, 'pack-memory.ts')
    const { options, env } = nodeAsStarted()
    const args = [...options, script, file, sha256]
    return Number(execFileSync(process.execPath, args, { encoding: 'utf8', env }))
  } finally {
    rmSync(directory, { recursive: true })
  }
}
