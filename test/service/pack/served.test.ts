// serve --pack: kernels of a pack in a file, without a store and beside one.
import { existsSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { zstdDecompressSync } from 'node:zlib'
import t from 'tap'
import { Catalog, openStore, putRecord, sha256Of } from '../../../storage/index.ts'
import { run } from '../../helpers/command.ts'
import { nthBtf, putSeries, writePackOf } from '../../helpers/packs.ts'
import { serve } from '../../helpers/serve-process.ts'
import { ask, btfOf, recordOf } from '../../helpers/test-service.ts'

const directory = t.testdir()
const at = (...path: string[]) => join(directory, ...path)
const memory = await openStore('memory:')
const records = await putSeries(memory, 3)
const file = at('debian.btfpack')
const bytes = await writePackOf(memory, file)

async function getBtf(url: string, release: string) {
  const path = `${url}/v1/btf/debian/12/x86_64/${release}`
  const answer = await ask(path, { 'accept-encoding': 'zstd' })
  return answer.status === 200 ? sha256Of(zstdDecompressSync(answer.bytes)) : answer.status
}

t.test('a pack is served without a store, and none is made', async (t) => {
  const env = { ...process.env, BTFMILL_STORE: undefined }
  process.chdir(directory)
  const { url } = await serve(t, ['--pack', file], { env })
  for (const { kernel, btf } of records) t.equal(await getBtf(url, kernel.release), btf.sha256)
  t.equal(await getBtf(url, '6.1.0-9-amd64'), 404)
  const { json } = await ask(`${url}/v1/kernels/debian/12/x86_64/${records[0]!.kernel.release}`)
  t.match(json, {
    builds: [
      {
        origin: 'import',
        package: { authenticated: 'none' },
        btf: { sha256: records[0]!.btf.sha256 },
      },
    ],
  })
  const digest = sha256Of(bytes)
  t.match((await ask(`${url}/v1/packs`)).json, { packs: [{ digest, kernels: 3 }] })
  t.ok((await ask(`${url}/v1/packs/${digest}`)).bytes.equals(bytes))
  const part = await ask(`${url}/v1/packs/${digest}`, { range: 'bytes=10-19' })
  t.ok(part.bytes.equals(bytes.subarray(10, 20)))
  t.notOk(existsSync(at('btfmill-store')))

  writeFileSync(at('other'), 'something else')
  renameSync(at('other'), file)
  t.equal(await getBtf(url, records[1]!.kernel.release), records[1]!.btf.sha256, 'the old file')
  writeFileSync(file, bytes)
})

t.test('a pack is served beside a store, whose own BTF comes first', async (t) => {
  const store = await openStore(`file:${at('store')}`)
  const [, second] = records
  const made = recordOf(second!.kernel, { btf: await btfOf(store, nthBtf(30)) })
  await putRecord(store, made)
  await putRecord(store, recordOf({ release: 'own' }, { btf: await btfOf(store, nthBtf(31)) }))
  await Catalog.publish(store)
  const { url } = await serve(t, ['--pack', file, '--store', at('store')])
  t.equal(await getBtf(url, 'own'), sha256Of(nthBtf(31)))
  t.equal(await getBtf(url, records[0]!.kernel.release), records[0]!.btf.sha256)
  t.equal(await getBtf(url, second!.kernel.release), made.btf!.sha256)
  const { json } = await ask(`${url}/v1/kernels`)
  t.equal((json!.kernels as unknown[]).length, 4)
})

t.test('a file that is no pack is refused at once', async (t) => {
  const junk = at('junk')
  for (const content of [Buffer.alloc(0), Buffer.from('junk'), bytes.subarray(0, 100)]) {
    writeFileSync(junk, content)
    const { status, stderr } = await run('serve', '--pack', junk)
    t.match({ status, stderr }, { status: 1, stderr: /invalid_pack: invalid pack: / })
  }
  t.match(await run('serve', '--pack', at('none')), { status: 1, stderr: /ENOENT/ })
})

t.test(
  'a catalog keeps the records beside its store through all changes of the store',
  async (t) => {
    const store = await openStore('memory:')
    const entries = [...(await Catalog.open(memory)).list()]
    const catalog = new Catalog(store, undefined, entries)
    const releases = () => [...catalog.list()].map(({ record }) => record.kernel.release)
    const all = records.map(({ kernel }) => kernel.release)
    t.same(releases(), all)
    t.equal(await catalog.refresh(), false, 'nothing of the store changed')
    const failed = {
      code: 'no_dwarf',
      message: 'x',
      attempts: 1,
      at: records[0]!.createdAt,
      retryAt: null,
    } as const
    await putRecord(store, { ...recordOf(records[0]!.kernel), failure: failed })
    await putRecord(store, recordOf(records[1]!.kernel, { btf: await btfOf(store, nthBtf(9)) }))
    t.equal(await catalog.refresh(), true)
    const found = () =>
      records.map(({ kernel }) => catalog.find(kernel).map(({ btf }) => btf?.sha256))
    const own = records.map(({ btf }) => btf.sha256)
    const expected = [[own[0]], [sha256Of(nthBtf(9))], [own[2]]]
    t.same(found(), expected, 'BTF of the store comes first, a failure does not')
    await Catalog.publish(store)
    await catalog.follow()
    t.same(found(), expected)
    for await (const { key } of store.list('kernels/')) await store.delete(key)
    await catalog.refresh()
    t.same(
      found(),
      own.map((sha256) => [sha256]),
    )
  },
)
