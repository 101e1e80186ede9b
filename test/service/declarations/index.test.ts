// The index of declarations: what it answers is what the BTFs say, in whatever order they were taken up.
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { type BtfDiff, DeclaredForms, diffBtf, encodeBtf, parseBtf } from '../../../bpf/index.ts'
import type { DiffEntry } from '../../../service/declarations/answers.ts'
import { IndexReader } from '../../../service/declarations/reader.ts'
import { type CatalogKernel, IndexWriter } from '../../../service/declarations/writer.ts'
import { craft, info } from '../../helpers/craft.ts'
import { fixture, fixtureNames } from '../../helpers/fixtures.ts'
import { compileBtf, kernelWith, SMALL_KERNELS } from '../../helpers/kernel-series.ts'

const folder = t.testdir()
let files = 0
const newPath = () => join(folder, `index-${files++}.sqlite`)

type Input = readonly [raw: Uint8Array, kernel: CatalogKernel]

const small: Input[] = SMALL_KERNELS.map(([release, source]) => {
  const raw = compileBtf(folder, source)
  return [raw, kernelWith(raw, { release })]
})

/** An index with these kernels, taken up in this order. */
function indexed(inputs: readonly Input[], path = newPath()): IndexReader {
  const writer = IndexWriter.open(path)
  for (const [raw, kernel] of inputs) {
    const failure = writer.add(raw, kernel)
    if (failure !== undefined) throw new Error(failure)
  }
  writer.setKernels(inputs.map(([, kernel]) => kernel))
  writer.close()
  return opened(path)
}

const readers: IndexReader[] = []
t.teardown(() => {
  for (const reader of readers) reader.close()
})

function opened(path: string): IndexReader {
  const reader = new IndexReader(path)
  readers.push(reader)
  return reader
}

/** Everything that an index says of some names, without what depends on the order. */
const answersOf = (reader: IndexReader, names: readonly string[]) =>
  names.flatMap((name) =>
    reader.history(name).map(({ forms, ...history }) => ({
      ...history,
      series: history.series.map((series) => ({
        ...series,
        runs: series.runs.map((run) => ({
          ...run,
          forms: run.forms.map((form) => forms[form]).sort((a, b) => (a!.form < b!.form ? -1 : 1)),
          changes: run.forms.length === 1 ? run.changes : undefined,
        })),
      })),
    })),
  )

t.test('the history of a struct has a run for each form, in the order of releases', async (t) => {
  const [history, ...others] = indexed([small[2]!, small[0]!, small[1]!]).history('task_struct')
  t.same(others, [])
  const [series] = history!.series
  t.match(series, { distro: 'debian', version: '12', flavour: '-amd64', kernels: 3 })
  t.same(
    series!.runs.map(({ first, last, kernels }) => [first.release, last.release, kernels]),
    [
      ['6.1.0-1-amd64', '6.1.0-1-amd64', 1],
      ['6.1.0-2-amd64', '6.1.0-2-amd64', 1],
      ['6.1.0-10-amd64', '6.1.0-10-amd64', 1],
    ],
  )
  t.match(series!.runs[1]!.changes, { added: ['flags'], moved: 1, removed: [] })
  t.match(series!.runs[2]!.changes, { renamed: [{ from: 'state', to: '__state' }], added: [] })
})

t.test(
  'the history of a member says when it came, moved, went, and which one took its place',
  async (t) => {
    const index = indexed(small)
    const runs = (name: string, member: string) =>
      index.memberHistory(name, member)[0]!.series[0]!.runs
    t.same(
      runs('task_struct', 'state').map(({ state, changes, renamedTo }) => [
        state,
        changes,
        renamedTo,
      ]),
      [
        ['present', [], undefined],
        ['no_member', ['went', 'renamed'], '__state'],
      ],
      'its place stayed the same when flags came',
    )
    t.same(
      runs('task_struct', 'pid').map(({ changes }) => changes),
      [[], ['moved']],
    )
    t.match(runs('task_struct', '__state').at(-1), {
      changes: ['came', 'renamed'],
      renamedFrom: 'state',
    })
    t.same(
      runs('mode', 'MODE_B').map(({ changes }) => changes),
      [[], ['renumbered']],
    )
    t.same(
      runs('fresh', 'task').map(({ state }) => state),
      ['no_type', 'present'],
    )
    t.same(index.memberHistory('task_struct', 'nothing'), [])
  },
)

t.test('a change behind a pointer changes nothing else', async (t) => {
  const [history] = indexed(small).history('sched_switch', ['tracepoint'])
  t.equal(history!.forms.length, 1)
  t.equal(
    history!.forms[0]!.declaration,
    'void sched_switch(int, struct task_struct *)',
    "without the probe's own first parameter",
  )
})

t.test('functions, helpers, map types and enumerators are found by their names', async (t) => {
  const index = indexed(small)
  t.same(
    index.history('vfs_read')[0]!.forms.map(({ declaration }) => declaration),
    ['int vfs_read(int fd, char *to)', 'long vfs_read(int fd, char *to, long at)'],
  )
  const kinds = (text: string) =>
    index.search(text).found.map(({ kind, name, of }) => [kind, name, of?.name])
  t.same(kinds('BPF_FUNC_map_lookup_elem')[0], ['helper', 'BPF_FUNC_map_lookup_elem', undefined])
  t.same(kinds('BPF_MAP_TYPE_HASH')[0], ['map_type', 'BPF_MAP_TYPE_HASH', undefined])
  t.same(kinds('MODE_C'), [['enumerator', 'MODE_C', 'mode']])
  t.same(kinds('task_struct.pid'), [['member', 'pid', 'task_struct']])
  t.same(kinds('struct task_struct')[0], ['struct', 'task_struct', undefined])
  t.same(kinds('6.1.0-10')[0], ['kernel', '6.1.0-10-amd64', undefined])
  t.ok(
    kinds('FS_REA').some(([, name]) => name === 'vfs_read'),
    'inside of a name, in any case',
  )
  t.same(kinds("' OR 1 --"), [])
  t.same(kinds('%'), [])
})

t.test('search goes on where the page before ended', async (t) => {
  const index = indexed(small)
  const all = index.search('BPF_', { limit: 100 }).found
  const pages = []
  for (let cursor: string | undefined = '0'; cursor !== undefined; ) {
    const page = index.search('BPF_', { limit: 2, cursor })
    pages.push(...page.found)
    cursor = page.next
  }
  t.ok(all.length > 3)
  t.same(pages, all)
  t.throws(() => index.search('BPF_', { cursor: 'x' }), RangeError)
})

const FIXTURES = fixtureNames(/^types-.*\.btf$/).map((name) => fixture(name))

/** Each name that a BTF declares, with all that it says of it. */
function formsOf(raw: Uint8Array): Map<string, Set<string>> {
  const declared = new DeclaredForms(parseBtf(raw))
  const all = new Map<string, Set<string>>()
  for (let i = 0; i < declared.length; i++) {
    const { size, declaration, members, values } = declared.form(i)
    const name = `${declared.kind(i)} ${declared.name(i)}`
    const text = JSON.stringify([size, declaration, members, values])
    all.set(name, (all.get(name) ?? new Set()).add(text))
  }
  return all
}

t.test('the index says of each kernel what its BTF says, whatever came before', async (t) => {
  const kernels: Input[] = FIXTURES.map((raw, i) => [
    raw,
    kernelWith(raw, { arch: `a${i % 3}`, release: `6.${i}.0` }),
  ])
  t.ok(kernels.length >= 4, `${kernels.length} BTFs, of both byte orders`)
  for (const order of [
    kernels,
    kernels.toReversed(),
    [...kernels.slice(2), ...kernels.slice(0, 2)],
  ]) {
    const index = indexed(order)
    for (const [raw, { kernel }] of order) {
      for (const [name, forms] of formsOf(raw)) {
        const [kind = '', text = ''] = name.split(/ (.*)/s)
        const { declarations } = index.declared(text, { kernel, kinds: [kind as never] })!
        const found = declarations.map(({ size, declaration, members, values }) =>
          JSON.stringify([size, declaration, members, values]),
        )
        if (!t.same(new Set(found), forms, name)) return
      }
    }
  }
})

t.test('diff is that of the BTFs', async (t) => {
  const pairs = [...FIXTURES, ...small.map(([raw]) => raw)].map(
    (raw, i): Input => [raw, kernelWith(raw, { release: `6.${i}.0` })],
  )
  const index = indexed(pairs)
  for (const [a, old] of pairs)
    for (const [b, now] of pairs) {
      const { added, removed, changed }: BtfDiff = diffBtf(parseBtf(a), parseBtf(b))
      const expected = [
        ...added.map((one) => ({ change: 'added', ...one })),
        ...removed.map((one) => ({ change: 'removed', ...one })),
        ...changed.map((one) => ({ change: 'changed', ...one })),
      ]
      const types = ['struct', 'union', 'enum', 'typedef', 'func', 'fwd', 'int', 'float'] as const
      const { entries } = index.diff(old.kernel, now.kernel, { kinds: types, limit: 100_000 })!
      const sorted = (all: readonly object[]) => all.map((one) => JSON.stringify(one)).sort()
      t.same(sorted(entries), sorted(expected))
    }
})

t.test('filters and pages of a diff choose from the whole of it', async (t) => {
  const pairs = [...FIXTURES, ...small.map(([raw]) => raw)].map(
    (raw, i): Input => [raw, kernelWith(raw, { release: `6.${i}.0` })],
  )
  const index = indexed(pairs)
  for (const [, old] of pairs)
    for (const [, now] of pairs) {
      const diff = (filter: Parameters<typeof index.diff>[2]) =>
        index.diff(old.kernel, now.kernel, { limit: 100_000, ...filter })!
      const whole = diff({})
      const same = (filter: Parameters<typeof index.diff>[2], has: (one: DiffEntry) => boolean) =>
        t.same(diff(filter).entries, whole.entries.filter(has))
      same({ kinds: ['struct', 'func'] }, ({ kind }) => kind === 'struct' || kind === 'func')
      same({ name: 'task_struct' }, ({ name }) => name === 'task_struct')
      same({ part: 'task' }, ({ name }) => name.includes('task'))
      for (const change of ['added', 'removed', 'changed'] as const)
        same({ change, kinds: ['struct'] }, (one) => one.change === change && one.kind === 'struct')
      const { counts } = diff({ change: 'added' })
      t.same(
        counts.map(({ kind, added }) => [kind, added]),
        whole.counts.filter(({ added }) => added > 0).map(({ kind, added }) => [kind, added]),
      )
      const pages = Array.from({ length: 4 }, (_, n) => diff({ limit: 3, cursor: String(3 * n) }))
      t.same(
        pages.flatMap(({ entries }) => entries),
        whole.entries.slice(0, 12),
      )
    }
})

t.test('several types of one name in one kernel are several forms of it', async (t) => {
  const int = {
    kind: 'INT',
    id: 1,
    name: 'int',
    size: 4,
    signed: true,
    char: false,
    bool: false,
    bits: 32,
    bitOffset: 0,
  } as const
  const struct = (id: number, name: string) =>
    ({
      kind: 'STRUCT',
      id,
      name: 'twin',
      size: 4,
      flag: false,
      members: [{ name, type: 1, bitOffset: 0, bitfieldSize: 0 }],
    }) as const
  const raw = encodeBtf([int, struct(2, 'a'), struct(3, 'b'), struct(4, 'a')])
  const index = indexed([[raw, kernelWith(raw)]])
  const [history] = index.history('twin')
  t.same(
    history!.series[0]!.runs.map(({ forms }) => forms),
    [[0, 1]],
  )
  t.same(
    index.declared('twin')!.declarations.map(({ members }) => members![0]!.name),
    ['a', 'b'],
  )
})

t.test('kernels that are gone from the catalog are gone from all answers', async (t) => {
  const path = newPath()
  const writer = IndexWriter.open(path)
  for (const [raw, kernel] of small) writer.add(raw, kernel)
  writer.setKernels(small.slice(0, 2).map(([, kernel]) => kernel))
  writer.close()
  const index = opened(path)
  t.same(index.history('fresh'), [])
  t.equal(index.history('vfs_read')[0]!.forms.length, 1)
  t.equal(index.stats().kernels, 2)
  t.same(
    answersOf(index, ['task_struct', 'mode', 'vfs_read']),
    answersOf(indexed(small.slice(0, 2)), ['task_struct', 'mode', 'vfs_read']),
  )
})

t.test('neighbours, the kernels of a form, and the newest kernel that has a type', async (t) => {
  const index = indexed(small)
  const { kernel } = small[1]![1]
  t.match(index.neighbours(kernel), {
    position: 1,
    kernels: 3,
    previous: { release: '6.1.0-1-amd64' },
    next: { release: '6.1.0-10-amd64' },
  })
  t.equal(index.neighbours({ ...kernel, release: 'none' }), undefined)
  const { declarations, kernel: newest } = index.declared('mode', { kinds: ['enum'] })!
  t.equal(newest.release, '6.1.0-10-amd64')
  t.match(index.holders('mode', declarations[0]!.form), {
    kernels: [{ release: '6.1.0-10-amd64' }],
  })
  t.equal(index.holders('mode', '0'.repeat(16)), undefined)
})

t.test(
  'a writer that shares the file takes up nothing twice, and readers see what it did',
  async (t) => {
    const path = newPath()
    const [one, two] = [IndexWriter.open(path), IndexWriter.open(path)]
    const reader = new IndexReader(path)
    t.teardown(() => reader.close())
    one.add(...small[0]!)
    two.add(...small[1]!)
    t.equal(reader.stats().btfs, 2)
    one.add(...small[1]!)
    one.add(...small[2]!)
    two.close()
    one.close()
    t.match(reader.stats(), { btfs: 3, kernels: 3 })
    t.same(
      answersOf(reader, ['task_struct', 'mode']),
      answersOf(indexed(small), ['task_struct', 'mode']),
    )
  },
)

t.test('a damaged file, and one that is no index, is made again', async (t) => {
  for (const damage of [Buffer.from('no database'), undefined]) {
    const path = newPath()
    indexed(small, path)
    const bytes = damage ?? readFileSync(path).fill(0xa5, 100, 2000)
    writeFileSync(path, bytes)
    t.throws(() => new IndexReader(path).stats(), { name: 'UnusableIndex' })
    const again = indexed(small, path)
    t.equal(again.stats().kernels, 3)
  }
  t.throws(() => new IndexReader(join(folder, 'none.sqlite')), { name: 'UnusableIndex' })
})

t.test(
  'BTF that cannot be taken up is remembered with the reason, and leaves no trace',
  async (t) => {
    const loop = craft(
      [1, info(4, 1), 4, 3, 2, 0, 0, info(4, 1), 4, 3, 2, 0], // an anonymous struct that contains itself
      '\0s\0m\0',
    )
    const path = newPath()
    const writer = IndexWriter.open(path)
    writer.add(...small[0]!)
    t.match(writer.add(loop, kernelWith(loop, { release: '6.9.0' })), /^(cycle|too_large): /)
    t.ok(writer.has(kernelWith(loop).sha256), 'it is not tried again')
    t.match(
      writer.add(Buffer.from('no BTF'), kernelWith(Buffer.from('no BTF'))),
      /^invalid_header: /,
    )
    writer.add(...small[1]!)
    writer.close()
    const index = new IndexReader(path)
    t.teardown(() => index.close())
    t.match(index.stats(), { kernels: 2, failed: { length: 2 } })
    t.same(
      index.search('s').found.filter(({ name }) => name === 's'),
      [],
    )
  },
)

t.test('names of any bytes are no harm', async (t) => {
  const names = ["a'b", 'new\nline', '\u{1f600}', 'x'.repeat(600), '%', '..', 'a"b']
  const int = (name: string, id: number) =>
    ({ kind: 'STRUCT', id, name, size: 0, flag: false, members: [] }) as const
  const raw = encodeBtf(names.map((name, i) => int(name, i + 1)))
  const index = indexed([[raw, kernelWith(raw)]])
  for (const name of names)
    t.equal(
      index.history(name).length,
      name.length > 512 ? 0 : 1,
      JSON.stringify(name.slice(0, 20)),
    )
})
