// Kernels share answers about objects only where each would get the same by itself.
import { readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import t from 'tap'
import { eachIdentity, parseBtf, TypeTrace } from '../../../bpf/index.ts'
import { ALL_TYPES } from '../../../bpf/name-identity.ts'
import { nameKey } from '../../../bpf/name-key.ts'
import { SharedAnswers, type SharingKernel } from '../../../service/threads/shared-answers.ts'
import type { TracedAnswer } from '../../../service/threads/worker.ts'
import { sha256Of } from '../../../storage/index.ts'
import { coreObjects, littleKernels, wholeKernel } from '../../helpers/core.ts'
import { craft, info } from '../../helpers/craft.ts'
import {
  indexOfKernels,
  mutated,
  type NamedBytes,
  reportSharing,
  shuffled,
} from '../../helpers/sharing.ts'

const folder = t.testdir()
let files = 0
const newPath = () => join(folder, `${files++}.sqlite`)

const objectsOf = (order: 'el' | 'eb'): NamedBytes[] =>
  [...coreObjects(order)].map(([name, path]) => ({ name, bytes: readFileSync(path) }))

const small = [...littleKernels()].map(([name, path]): NamedBytes => {
  const kernel = wholeKernel(parseBtf(readFileSync(path)), ['do_exit', 'vfs_read'])
  return { name: basename(name), bytes: Buffer.from(kernel.bytes) }
})

for (const order of ['el', 'eb'] as const)
  t.test(`kernels that are alike get the same answers (${order})`, async (t) => {
    const wanted = order === 'el' ? 'little' : 'big'
    const whole = small.filter(({ bytes }) => parseBtf(bytes).byteOrder === wanted)
    const kernels = whole.flatMap(({ name, bytes }): NamedBytes[] => [
      { name, bytes },
      ...[1, 2].map((n) => ({ name: `${name} shuffled ${n}`, bytes: shuffled(bytes, n) })),
      ...[...Array(12).keys()].map((n) => ({
        name: `${name} changed ${n}`,
        bytes: mutated(bytes, 1000 + n),
      })),
    ])
    const different = [...new Map(kernels.map((one) => [one.bytes.toString(), one])).values()]
    const index = indexOfKernels(newPath(), different)
    t.teardown(() => index.close())
    const { wrong, shared, all } = reportSharing(index, different, objectsOf(order))
    t.same(wrong, [])
    t.comment(`${shared} of ${all} answers are shared`)
    t.ok(shared > all / 3, `${shared} of ${all} answers are shared`)
  })

const INT = [1, info(1), 4, 32]
/** names: 1 int, 5 s, 7 f, 9 a, 11 t */
const STRINGS = '\0int\0s\0f\0a\0t\0'
const STRUCT = 4
const [FUNC, FUNC_PROTO, TYPEDEF] = [12, 13, 8]
const member = (name: number, type: number, bits: number) => [name, type, bits]

/** Pairs of kernels that differ in one thing only, and a name by which they must be told apart. */
const DIFFERENT: Readonly<Record<string, readonly [string, number[], number[]]>> = {
  'the kind_flag of a struct': [
    's',
    [...INT, 5, info(STRUCT, 1, 0), 4, ...member(9, 1, 0)],
    [...INT, 5, info(STRUCT, 1, 1), 4, ...member(9, 1, 0)],
  ],
  'the linkage of a function': [
    'f',
    [...INT, 0, info(FUNC_PROTO), 1, 7, info(FUNC, 0), 2],
    [...INT, 0, info(FUNC_PROTO), 1, 7, info(FUNC, 1), 2],
  ],
  'the type of a return value': [
    'f',
    [...INT, 0, info(FUNC_PROTO), 1, 7, info(FUNC, 0), 2],
    [...INT, 0, info(FUNC_PROTO), 0, 7, info(FUNC, 0), 2],
  ],
  'which of two types of one name a member has': [
    't',
    [
      ...[...INT, 5, info(STRUCT), 4, 5, info(STRUCT), 8],
      ...[11, info(STRUCT, 1), 8, ...member(9, 2, 0)],
    ],
    [
      ...[...INT, 5, info(STRUCT), 4, 5, info(STRUCT), 8],
      ...[11, info(STRUCT, 1), 8, ...member(9, 3, 0)],
    ],
  ],
  'the order of two types of one name': [
    's',
    [...INT, 5, info(STRUCT), 4, 5, info(STRUCT), 8],
    [...INT, 5, info(STRUCT), 8, 5, info(STRUCT), 4],
  ],
  'a second type of a name': [
    's',
    [...INT, 5, info(STRUCT), 4],
    [...INT, 5, info(STRUCT), 4, 5, info(STRUCT), 4],
  ],
  'a forward declaration beside a struct': [
    's',
    [...INT, 5, info(STRUCT), 4],
    [...INT, 5, info(STRUCT), 4, 5, info(7), 0],
  ],
  'a member of a struct without a name': [
    's',
    [
      ...[...INT, 0, info(STRUCT, 1), 4, ...member(9, 1, 0)],
      ...[5, info(STRUCT, 1), 4, ...member(0, 2, 0)],
    ],
    [
      ...[...INT, 0, info(STRUCT, 1), 4, ...member(11, 1, 0)],
      ...[5, info(STRUCT, 1), 4, ...member(0, 2, 0)],
    ],
  ],
}

t.test('kernels are told apart that differ in one name only', async (t) => {
  const keyOf = (name: string) => nameKey(Buffer.from(name))
  for (const [what, [name, one, other]] of Object.entries(DIFFERENT)) {
    const kernels = [one, other].map((words, n) => ({
      name: `${n}`,
      bytes: craft(words, STRINGS),
    }))
    const index = indexOfKernels(newPath(), kernels)
    const [a, b] = kernels.map(({ bytes }) => sha256Of(bytes))
    t.same(index.alike(a!, [keyOf(name)]), [a], what)
    t.same(index.alike(b!, [keyOf(name)]), [b], what)
    t.same(index.alike(a!, [keyOf('int')]), [a, b], `${what}: another name is the same`)
    index.close()
  }
})

t.test('kernels are told apart by their byte order and the size of their pointers', async (t) => {
  const words = [...INT, 5, info(STRUCT), 4]
  const kernels = [
    craft(words, STRINGS),
    craft([...words, 11, info(TYPEDEF), 1], STRINGS),
    craft(words, STRINGS, [], 'big'),
    craft([...words, 13, info(1), 4, 32], `${STRINGS}long\0`),
  ].map((bytes, n) => ({ name: `${n}`, bytes }))
  const [plain, same, big, narrow] = kernels.map(({ bytes }) => sha256Of(bytes))
  const index = indexOfKernels(newPath(), kernels)
  t.teardown(() => index.close())
  const alike = (sha256: string) => index.alike(sha256, [ALL_TYPES, nameKey(Buffer.from('s'))])
  t.same(alike(plain!), [plain, same])
  t.same(alike(big!), [big])
  t.same(alike(narrow!), [narrow])
  t.same(alike('0'.repeat(64)), [], 'a kernel that the index does not have')
})

t.test('BTF with many types of one name is taken up as fast as any', async (t) => {
  const words = Array.from({ length: 200_000 }, () => [5, info(STRUCT), 4]).flat()
  const btf = parseBtf(craft([...INT, ...words], STRINGS))
  let count = 0
  const before = process.cpuUsage()
  t.ok(eachIdentity(btf, () => count++))
  t.equal(count, 3, 'int, s, and what holds for all types')
  const { user, system } = process.cpuUsage(before)
  t.ok((user + system) / 1e6 < 5)
})

t.test('a reader that does not come by a name has no trace', async (t) => {
  const words = [...INT, 0, info(STRUCT, 1), 4, ...member(9, 1, 0)]
  const btf = parseBtf(craft([...words, 5, info(STRUCT, 1), 4, ...member(9, 2, 0)], STRINGS))
  const byName = new TypeTrace(btf)
  for (const id of [3, 2, 1]) byName.type(id)
  t.same(
    new Set(byName.keys()),
    new Set([ALL_TYPES, ...['s', 'int'].map((name) => nameKey(Buffer.from(name)))]),
  )
  const byNumber = new TypeTrace(btf)
  byNumber.type(2)
  t.equal(byNumber.keys(), undefined)
})

const traced = <T>(value: T, more: Partial<TracedAnswer<T>> = {}): TracedAnswer<T> => ({
  ...{ value, needsModules: false, keys: [1], usesVersion: false, ...more },
})

/** Asks for kernels whose digests are letters; those before the `|` are alike, and those behind it. */
function sharing(
  groups: string,
  answer: (kernel: string) => Partial<TracedAnswer<string[]>> = () => ({}),
) {
  const find = async (sha256: string) => [
    ...(groups.split('|').find((g) => g.includes(sha256)) ?? ''),
  ]
  const shared = new SharedAnswers<string[]>(find, 1e6, () => 1)
  const work: string[] = []
  const ask = (kernel: string, more: Partial<SharingKernel> = {}) =>
    shared.answer(
      { sha256: kernel, size: 1, inputs: '', hasModules: false, ...more },
      {
        traced: async ({ sha256 }) => {
          work.push(sha256)
          await new Promise(setImmediate)
          return traced([sha256], answer(kernel))
        },
        withModules: async () => {
          work.push(`${kernel}+modules`)
          return [`${kernel}+modules`]
        },
      },
    )
  return { ask, work }
}

t.test(
  'the work is done once for kernels that are alike, however many ask at a time',
  async (t) => {
    const { ask, work } = sharing('abc|de')
    t.same((await Promise.all([...'abdce'].map((one) => ask(one)))).flat(), [...'aadad'])
    t.same(work, ['a', 'd'])
    t.same(await ask('x'), ['x'], 'a kernel that the index does not have')
    await Promise.all([ask('a', { inputs: 'other' }), ask('b', { inputs: 'other' })])
    t.same(work, ['a', 'd', 'x', 'a'], 'other inputs, another answer')
  },
)

t.test('an answer that no other kernel has is not shared', async (t) => {
  const { ask, work } = sharing('abc', () => ({ keys: undefined }))
  t.same((await Promise.all([...'abc'].map((one) => ask(one)))).flat(), [...'abc'])
  t.same(work, [...'abc'])
})

t.test('an answer that depends on the version is shared by kernels of one version', async (t) => {
  const { ask, work } = sharing('abcd', () => ({ usesVersion: true }))
  const asked = await Promise.all([...'abcd'].map((one, n) => ask(one, { version: n % 2 })))
  t.same(asked.flat(), [...'aaaa'], 'the BTF of one is read for both versions')
  t.same(work, ['a', 'a'])
})

t.test('BTF is read for another kernel only if all that was read is the same there', async (t) => {
  const find = async (sha256: string, [key]: readonly number[]) =>
    key === 1 ? ['a', 'b'] : [sha256]
  const shared = new SharedAnswers<string[]>(find, 1e6, () => 1)
  const work: string[] = []
  const ask = async (kernel: string, version: number) =>
    await shared.answer(
      { sha256: kernel, size: 1, inputs: '', hasModules: false, version },
      {
        traced: async ({ sha256 }) => {
          work.push(`${sha256} ${version}`)
          return traced([sha256], { usesVersion: true, keys: [version] })
        },
        withModules: async () => [],
      },
    )
  t.same(await ask('a', 1), ['a'])
  t.same(await ask('b', 1), ['a'])
  t.same(await ask('b', 2), ['b'], 'under the other version another name is read')
  t.same(work, ['a 1', 'a 2', 'b 2'])
})

t.test('each kernel whose modules are needed is asked with them', async (t) => {
  const { ask, work } = sharing('abc', () => ({ value: undefined, needsModules: true }))
  const asked = await Promise.all([...'abc'].map((one) => ask(one, { hasModules: true })))
  t.same(
    asked.flat(),
    [...'abc'].map((one) => `${one}+modules`),
  )
  t.same(
    work.filter((one) => one.length === 1),
    ['a'],
    'one has told that they are needed',
  )
})

t.test(
  'an error concerns the kernel that had it alone, and so does an index that fails',
  async (t) => {
    const { ask } = sharing('abc', (kernel) => {
      if (kernel === 'a') throw new Error('damaged')
      return {}
    })
    const asked = await Promise.allSettled([...'abc'].map((one) => ask(one)))
    t.same(
      asked.map(({ status }) => status),
      ['rejected', 'fulfilled', 'fulfilled'],
    )
    const failing = new SharedAnswers<string[]>(
      async () => Promise.reject(new Error()),
      1e6,
      () => 1,
    )
    const alone = async (kernel: string) =>
      await failing.answer(
        { sha256: kernel, size: 1, inputs: '', hasModules: false },
        { traced: async () => traced([kernel]), withModules: async () => [] },
      )
    t.same((await Promise.all([...'ab'].map(alone))).flat(), [...'ab'])
  },
)

t.test('an answer by very many names costs the index no look-up', async (t) => {
  let lookups = 0
  const find = async () => {
    lookups++
    return ['a', 'b']
  }
  const ask = async (names: number, sha256: string, answers: SharedAnswers<{ of: string }>) =>
    await answers.answer(
      { sha256, size: 1, inputs: '', hasModules: false },
      {
        traced: async () => {
          const keys = Array.from({ length: names }, (_, n) => n)
          return { value: { of: sha256 }, keys, needsModules: false, usesVersion: false }
        },
        withModules: async () => ({ of: sha256 }),
      },
    )
  const few = new SharedAnswers<{ of: string }>(find, 1000, () => 1)
  t.same([await ask(100, 'a', few), await ask(100, 'b', few)], [{ of: 'a' }, { of: 'a' }])
  t.ok(lookups > 0)
  lookups = 0
  const many = new SharedAnswers<{ of: string }>(find, 1000, () => 1)
  t.same([await ask(10_000, 'a', many), await ask(10_000, 'b', many)], [{ of: 'a' }, { of: 'b' }])
  t.equal(lookups, 0)
})
