// Tests records as JSON in a store: they survive a round trip, and invalid ones are rejected.
import t from 'tap'
import {
  buildOf,
  type Failure,
  listSourceFailures,
  openStore,
  putRecord,
  putSourceResult,
  readRecord,
  readSourceResult,
  recordKey,
  type SourceFailure,
  type StoreError,
} from '../../storage/index.ts'
import { keysOf, storeError, textOf } from '../helpers/store-contract.ts'
import { recordOf } from '../helpers/test-service.ts'

const failure: Failure = {
  code: 'no_dwarf',
  message: 'vmlinux has no .debug_info',
  log: 'pahole: …\n',
  attempts: 3,
  at: '2026-11-01T12:00:00.000Z',
  retryAt: null,
}
const btf = {
  sha256: 'ab'.repeat(32),
  size: 4_080_000,
  types: 120_000,
  kinds: ['INT', 'PTR', 'STRUCT'],
  byteOrder: 'big',
  pointerSize: 8,
} as const
const record = recordOf(
  {
    release: '6.12.107+deb13~rc1-amd64',
    buildId: 'c0ffee'.repeat(6),
    unameVersion: '#1 SMP "ä" \u0000',
  },
  {
    btf: { ...btf, kinds: [...btf.kinds] },
    embedded: false,
    failure,
    modules: { ext4: { sha256: btf.sha256, size: 1000, types: 10 } },
    wantedModules: ['*'],
    moduleFailures: { xfs: { code: 'no_dwarf', message: 'it has none' } },
  },
)
const key = recordKey(record.kernel, buildOf(record))

t.test('readRecord returns what putRecord wrote', async (t) => {
  const store = await openStore('memory:')
  const long = recordOf({ release: 'r'.repeat(255), distro: 'd'.repeat(255) })
  const bare = recordOf({ distro: 'a/b', version: '2:5', arch: '…' })
  for (const one of [record, long, bare]) {
    await putRecord(store, one)
    const key = recordKey(one.kernel, buildOf(one))
    t.same(await readRecord(store, key), one)
    t.equal((await textOf(store, key)).at(-1), '\n', 'a text file')
  }
  await putRecord(store, { ...record, embedded: true })
  t.equal((await readRecord(store, key)).embedded, true, 'a second put replaces the record')
  t.equal((await keysOf(store, '')).length, 3)
  await t.rejects(readRecord(store, 'kernels/none'), storeError('not_found'))
})

t.test('putRecord rejects a record that readRecord would reject', async (t) => {
  const store = await openStore('memory:')
  const large = { ...record, failure: { ...failure, log: 'x'.repeat(2 ** 20) } }
  await t.rejects(putRecord(store, large), storeError('invalid_record'))
  for (const release of ['', '..', 'r'.repeat(256)])
    await t.rejects(putRecord(store, recordOf({ release })), storeError('invalid_key'))
  const nameless = recordOf({}, { package: { ...record.package, version: '' } })
  await t.rejects(putRecord(store, nameless), storeError('invalid_record'))
  t.same(await keysOf(store, ''), [])
})

/** The record with another value at a path; `undefined` removes the field. */
function changed(path: string, value: unknown): unknown {
  const copy = structuredClone(record) as unknown as Record<string, unknown>
  const names = path.split('.')
  let at = copy
  for (const name of names.slice(0, -1)) at = at[name] as typeof at
  at[names.at(-1)!] = value
  return copy
}

/** Invalid values, by path in the record. */
const WRONG: Record<string, unknown[]> = {
  schema: [undefined, 0, 1.5, '1', null],
  kernel: [undefined, null, [], 'x'],
  'kernel.distro': [undefined, '', 1, '..', 'ubuntu'],
  'kernel.release': [null, {}, '.', 'r'.repeat(1000), '\ud800', '6.1.0-1-amd64'],
  'kernel.buildId': ['', 'xyz', 'ABCD', 1],
  'kernel.unameVersion': [1, null],
  package: [undefined, {}],
  'package.authenticated': [undefined, '', 'yes', true],
  'package.sha256': ['', 'ab', 'AB'.repeat(32), `${'ab'.repeat(32)}\n`],
  'package.size': [-1, 0.5, '1', null],
  origin: [undefined, 'other'],
  embedded: ['true', 1, null],
  btf: [null, [], {}],
  'btf.sha256': [undefined, '../../x', 'ab'],
  'btf.size': [-1, 1.5, null],
  'btf.byteOrder': ['middle', 1],
  'btf.pointerSize': [2, '8', 16],
  'btf.kinds': ['INT', [1], { 0: 'INT' }],
  modules: [[], 'x', { ext4: null }, { ext4: { ...btf, sha256: 'x' } }],
  'tool.name': [undefined, 'gcc'],
  'tool.options': [undefined, '-j', [null]],
  failure: [null, 'x'],
  'failure.code': [undefined, '', 'other', 'toString', '__proto__'],
  'failure.attempts': [0, -1, 1.5],
  'failure.retryAt': [undefined, 'soon', 0],
  createdAt: [undefined, '', 'yesterday', '2026-13-01T00:00:00Z', 1700000000],
}

t.test('readRecord rejects a record with an invalid value in any field', async (t) => {
  const store = await openStore('memory:')
  for (const [path, values] of Object.entries(WRONG))
    for (const value of values) {
      await store.put(key, Buffer.from(JSON.stringify(changed(path, value))))
      const name = `${path}: ${JSON.stringify(value)?.slice(0, 40)}`
      await t.rejects(readRecord(store, key), storeError('invalid_record'), name)
    }
})

t.test(
  'readRecord rejects text that is not a record, and no prototype is polluted',
  { timeout: 20_000 },
  async (t) => {
    const store = await openStore('memory:')
    const json = JSON.stringify(record)
    const wrong = {
      empty: '',
      'cut short': json.slice(0, -1),
      'trailing text': `${json}{}`,
      'control characters': '\0\x01\x02',
      HTML: '<html>',
      'a number': '1',
      null: 'null',
      'a list': `[${json}]`,
      'deeply nested': '['.repeat(1e6),
      'deeply nested in it': `${json.slice(0, -1)},"a":${'['.repeat(2e5)}${']'.repeat(2e5)},"schema":0}`,
      'too large': json + ' '.repeat(2 ** 20),
    }
    for (const [name, text] of Object.entries(wrong)) {
      await store.put(key, Buffer.from(text))
      await t.rejects(readRecord(store, key), storeError('invalid_record'), name)
    }
    const polluting = `${json.slice(0, -1)},"__proto__":{"polluted":1}}`
    await store.put(key, Buffer.from(polluting))
    await readRecord(store, key).catch(() => {})
    t.notOk('polluted' in {})
  },
)

t.test('readRecord rejects a record under the key of another kernel', async (t) => {
  const store = await openStore('memory:')
  const text = JSON.stringify(record)
  const other = recordKey({ ...record.kernel, release: '6.1.0-1-amd64' }, buildOf(record))
  for (const wrong of [other, 'kernels/x.json', `${key}/x`]) {
    await store.put(wrong, Buffer.from(text))
    await t.rejects(readRecord(store, wrong), storeError('invalid_record'), wrong)
  }
})

t.test(
  'listSourceFailures returns every stored source failure and reports invalid ones',
  async (t) => {
    const store = await openStore('memory:')
    const sources: SourceFailure[] = ['bookworm', 'bookworm-security', '../x', 'a/b'].map(
      (suite) => {
        const unreachable = { ...failure, code: 'unreachable', retryAt: failure.at } as const
        return {
          schema: 1,
          source: 'debian',
          suite,
          url: 'http://127.0.0.1/',
          failure: unreachable,
        }
      },
    )
    for (const source of sources) await putSourceResult(store, source)
    const [first] = await keysOf(store, 'sources/')
    t.match(await readSourceResult(store, first!), { source: 'debian' })

    await store.put('sources/debian/corrupt.json', Buffer.from('{'))
    const invalid: StoreError[] = []
    const listed = await Array.fromAsync(listSourceFailures(store, (error) => invalid.push(error)))
    t.same(listed.map(({ suite }) => suite).sort(), sources.map(({ suite }) => suite).sort())
    t.match(invalid, [{ code: 'invalid_record', message: /corrupt/ }])
    t.equal((await Array.fromAsync(listSourceFailures(store))).length, sources.length)
  },
)
