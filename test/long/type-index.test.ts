// The index of all types over real kernels, taken up in any order: what it says of kernels is what their BTF says. The
// kernels are those of the store in BTFMILL_REAL_STORE (default: .cache/debian-store). Some of them, some of their names
// and some of their pairs are compared, others in each run; the seed is printed, and BTFMILL_SEED repeats a run.
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import t from 'tap'
import { type Btf, DeclaredForms, diffBtf, parseBtf } from '../../bpf/index.ts'
import { IndexReader } from '../../service/declarations/reader.ts'
import { catalogKernel, IndexWriter } from '../../service/declarations/writer.ts'
import { Catalog, getBlob, openStore } from '../../storage/index.ts'

const [KERNELS, COMPARED, NAMES, PAIRS] = [60, 12, 400, 6]
const { BTFMILL_REAL_STORE: real, BTFMILL_SEED: seed } = process.env
const path = resolve(real ?? join(import.meta.dirname, '../../.cache/debian-store'))

/** Random numbers below a limit (mulberry32). */
function random(start: number): (limit: number) => number {
  let state = start
  return (limit) => {
    state = (state + 0x6d2b79f5) | 0
    let mix = Math.imul(state ^ (state >>> 15), 1 | state)
    mix = (mix + Math.imul(mix ^ (mix >>> 7), 61 | mix)) ^ mix
    return ((mix ^ (mix >>> 14)) >>> 0) % limit
  }
}

const NO_STORE = existsSync(path) ? {} : { skip: `no store at ${path}` }

t.test('the index says of real kernels what their BTF says', NO_STORE, async (t) => {
  const start = Number(seed ?? Date.now() % 1e6)
  t.comment(`BTFMILL_SEED=${start}`)
  const below = random(start)
  const some = <T>(all: readonly T[], count: number): T[] => {
    const left = [...all]
    return [...Array(Math.min(count, left.length))].map(
      () => left.splice(below(left.length), 1)[0]!,
    )
  }
  const store = await openStore(`file:${path}`, { create: false })
  const all = [...(await Catalog.open(store)).list()]
    .filter(({ record }) => record.btf)
    .map(({ key, record }) => catalogKernel(key, record))
  const kernels = some(all, KERNELS)
  const folder = mkdtempSync(join(tmpdir(), 'type-index-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  const writer = IndexWriter.open(join(folder, 'index.sqlite'))
  for (const kernel of kernels) {
    const failure = writer.add(await getBlob(store, kernel.sha256), kernel)
    t.equal(failure, undefined, kernel.key)
  }
  writer.setKernels(kernels, { whole: true })
  writer.close()
  const index = new IndexReader(join(folder, 'index.sqlite'))
  t.teardown(() => index.close())
  const btfOf = async ({ sha256 }: { sha256: string }): Promise<Btf> =>
    parseBtf(await getBlob(store, sha256))

  for (const { kernel, sha256 } of some(kernels, COMPARED)) {
    const declared = new DeclaredForms(await btfOf({ sha256 }))
    const places = Map.groupBy(
      Array(declared.length).keys(),
      (i) => `${declared.kind(i)} ${declared.name(i)}`,
    )
    for (const name of some([...places.keys()], NAMES)) {
      const [kind = '', text = ''] = name.split(/ (.*)/s)
      const expected = new Set(
        places.get(name)!.map((i) => {
          const { size, declaration, members, values } = declared.form(i)
          return JSON.stringify([size, declaration, members, values])
        }),
      )
      const answer = index.declared(text, { kernel: { ...kernel, sha256 }, kinds: [kind as never] })
      const found = answer?.declarations.map(({ size, declaration, members, values }) =>
        JSON.stringify([size, declaration, members, values]),
      )
      if (!t.same(new Set(found), expected, `${name} in ${kernel.release}`)) return
    }
  }

  for (let n = 0; n < PAIRS; n++) {
    const [a, b] = some(kernels, 2)
    const [old, now] = [await btfOf(a!), await btfOf(b!)]
    const { added, removed, changed } = diffBtf(old, now)
    const expected = [
      ...added.map((one) => ({ change: 'added', ...one })),
      ...removed.map((one) => ({ change: 'removed', ...one })),
      ...changed.map((one) => ({ change: 'changed', ...one })),
    ]
    const kinds = ['struct', 'union', 'enum', 'typedef', 'func', 'fwd', 'int', 'float'] as const
    const [from, to] = [a!, b!].map(({ kernel, sha256 }) => ({ ...kernel, sha256 }))
    const { entries } = index.diff(from!, to!, { kinds, limit: 1_000_000 })!
    const sorted = (list: readonly object[]) => list.map((one) => JSON.stringify(one)).sort()
    t.same(sorted(entries), sorted(expected), `${a!.kernel.release} to ${b!.kernel.release}`)
  }
})
