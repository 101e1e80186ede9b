// Kernels share answers about objects only where each gets the same by itself: real kernels of both byte orders, and some of
// them with their types in another order. The kernels are those of the long tests and some of the store in
// BTFMILL_REAL_STORE (default: .cache/debian-store), the objects some of those at hand, others in each run; the seed is
// printed, and BTFMILL_SEED repeats a run. BTFMILL_OBJECTS has the number of objects (default: 12), or `all`.
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join, resolve } from 'node:path'
import t from 'tap'
import { parseBtf } from '../../bpf/index.ts'
import { Catalog, getBlob, openStore, sha256Of } from '../../storage/index.ts'
import { objectsOfOthers } from '../bpf/oracle/others.ts'
import { coreObjects } from '../helpers/core.ts'
import { indexOfKernels, type NamedBytes, reportSharing, shuffled } from '../helpers/sharing.ts'
import { kernels } from './kernels.ts'

const [OF_STORE, SHUFFLED] = [24, 4]
const { BTFMILL_REAL_STORE: real, BTFMILL_SEED: seed, BTFMILL_OBJECTS: count = '12' } = process.env
const path = resolve(real ?? join(import.meta.dirname, '../../.cache/debian-store'))
const start = Number(seed ?? Date.now() % 1e6)

/** So many of some things, chosen by their names and the seed. */
function some<T>(all: readonly T[], count: number, nameOf: (one: T) => string): T[] {
  const rank = (one: T) => sha256Of(Buffer.from(`${start} ${nameOf(one)}`))
  return all.toSorted((a, b) => (rank(a) < rank(b) ? -1 : 1)).slice(0, count)
}

async function ofStore(): Promise<NamedBytes[]> {
  if (!existsSync(path)) return []
  const store = await openStore(`file:${path}`, { create: false })
  const all = [...(await Catalog.open(store)).list()].filter(({ record }) => record.btf)
  const chosen = some(all, OF_STORE, ({ key }) => key)
  return await Promise.all(
    chosen.map(async ({ key, record }) => ({
      name: key,
      bytes: await getBlob(store, record.btf!.sha256),
    })),
  )
}

t.test('real kernels that are alike get the same answers', async (t) => {
  t.comment(`BTFMILL_SEED=${start}`)
  const folder = mkdtempSync(join(tmpdir(), 'shared-answers-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  const long = (await kernels()).map(({ name, path }) => ({ name, bytes: readFileSync(path) }))
  const found = [...long, ...(await ofStore())]
  const again = some(found, SHUFFLED, ({ name }) => name).map(({ name, bytes }, n) => ({
    name: `${name} shuffled`,
    bytes: shuffled(bytes, start + n),
  }))
  const all = [...found, ...again]
  t.ok(new Set(all.map(({ bytes }) => parseBtf(bytes).byteOrder)).size === 2, 'both byte orders')
  const paths = [
    ...(['el', 'eb'] as const).flatMap((order) => [...coreObjects(order).values()]),
    ...(await objectsOfOthers()),
  ]
  const limit = count === 'all' ? paths.length : Number(count)
  const index = indexOfKernels(join(folder, 'index.sqlite'), all)
  t.teardown(() => index.close())
  for (const path of some(paths, limit, (path) => basename(path))) {
    const object = { name: basename(path), bytes: readFileSync(path) }
    const { wrong, shared, all: answers } = reportSharing(index, all, [object])
    t.same(wrong, [], `${object.name}: ${shared} of ${answers} answers are shared`)
  }
})
