// The index of all types over HTTP: answers, cursors, errors, caching, other origins; and how a service keeps it.
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { DeclarationHistory } from '../../../service/declarations/answers.ts'
import { joinHistories } from '../../../service/declarations/history.ts'
import { type BuildRecord, putRecord, type Store } from '../../../storage/index.ts'
import { formOf } from '../../helpers/bundles.ts'
import { coreObjects } from '../../helpers/core.ts'
import { compileBtf, SMALL_KERNELS } from '../../helpers/kernel-series.ts'
import { pageRecords } from '../../helpers/page-service.ts'
import { type Answer, ask, btfOf, recordOf, startTestService } from '../../helpers/test-service.ts'
import { until } from '../../helpers/wait-until.ts'

const folder = t.testdir()
const RAW = SMALL_KERNELS.map(([release, source]) => [release, compileBtf(folder, source)] as const)

const records = async (store: Store): Promise<BuildRecord[]> =>
  await Promise.all(
    RAW.map(async ([release, raw]) => recordOf({ release }, { btf: await btfOf(store, raw) })),
  )

const answers = (url: string): Promise<Answer> =>
  until(
    () => ask(url),
    ({ status }) => status !== 503,
  )

/** A service whose index is whole. */
async function indexed(test: Test, options: Parameters<typeof startTestService>[2] = {}) {
  const index = join(folder, `${Math.random()}.sqlite`)
  const settings = { index, ...options.settings }
  const service = await startTestService(test, records, { ...options, settings })
  if (settings.read !== 'token') await answers(`${service.url}/v1/stats`)
  return { ...service, index }
}

t.test('types, members, functions and what differs, by name', async (t) => {
  const { url } = await indexed(t)
  const json = async (path: string) => (await ask(`${url}${path}`)).json
  t.match(await json('/v1/types/task_struct'), {
    kernel: { release: '6.1.0-10-amd64' },
    declarations: [{ kind: 'struct', members: [{ name: 'flags' }, {}, { name: '__state' }, {}] }],
  })
  const asOf = await json('/v1/types/task_struct?kernel=debian/12/amd64/6.1.0-1-amd64')
  t.match(asOf, { declarations: [{ members: [{ name: 'pid' }, {}, {}] }] })
  t.match(await json('/v1/types/task_struct/history?kind=struct'), {
    declarations: [{ forms: { length: 3 }, series: [{ runs: { length: 3 } }] }],
  })
  t.match(await json('/v1/types/task_struct/members/state/history'), {
    members: [{ series: [{ runs: [{}, { state: 'no_member', renamedTo: '__state' }] }] }],
  })
  t.match(await json('/v1/functions/vfs_read'), { declarations: [{ kind: 'func' }] })
  t.match(await json('/v1/functions/sched_switch'), { declarations: [{ kind: 'tracepoint' }] })
  const { form } = (asOf as { declarations: { form: string }[] }).declarations[0]!
  t.match(await json(`/v1/types/task_struct/forms/${form}`), {
    kernels: [{ release: '6.1.0-1-amd64' }],
  })
  t.match(await json('/v1/diff?from=6.1.0-1-amd64&to=newest&kind=struct'), {
    counts: [{ kind: 'struct', added: 1, changed: 1, removed: 0 }],
    entries: [
      { change: 'added', name: 'fresh' },
      { change: 'changed', name: 'task_struct' },
    ],
  })
  t.match(await json('/v1/kernels/debian/12/x86_64/6.1.0-2-amd64/neighbours'), {
    previous: { release: '6.1.0-1-amd64' },
    next: { release: '6.1.0-10-amd64' },
  })
  t.match(await json('/v1/search?q=task_struct.p'), { found: [{ kind: 'member', name: 'pid' }] })
  t.match(await json('/v1/stats'), { kernels: 3, btfs: 3, series: 1, allSeries: [{ kernels: 3 }] })
})

t.test('a history comes in pages of runs, which together are the whole', async (t) => {
  const { url } = await indexed(t)
  for (const [path, key] of [
    ['/v1/types/task_struct/history', 'declarations'],
    ['/v1/functions/vfs_read', 'declarations'],
    ['/v1/types/task_struct/members/state/history', 'members'],
  ] as const) {
    const page = async (query: string) => {
      const { json, status } = await ask(`${url}${path}${query}`)
      t.equal(status, 200)
      return json as { [_ in typeof key]: DeclarationHistory[] } & { next?: string }
    }
    const whole = await page('')
    t.equal(whole.next, undefined)
    const pages: DeclarationHistory[][] = []
    for (let cursor = ''; ; ) {
      const { [key]: part, next } = await page(`?limit=1${cursor}`)
      t.equal(part[0]!.series[0]!.runs.length, 1)
      t.ok(part[0]!.forms.length <= 1)
      pages.push(part)
      if (next === undefined) break
      cursor = `&cursor=${next}`
    }
    t.same(joinHistories(pages), whole[key])
    t.same((await page('?cursor=99'))[key], [])
    t.equal((await ask(`${url}${path}?cursor=x`)).status, 400)
    t.equal(
      (await ask(`${url}${path.replace(/task_struct|vfs_read/, 'none')}?cursor=1`)).status,
      404,
    )
  }
})

t.test('an unknown name is an error with names near it', async (t) => {
  const { url } = await indexed(t)
  const problem = async (path: string) => {
    const { status, json } = await ask(`${url}${path}`)
    return [status, json!.code, json!.detail]
  }
  t.same(await problem('/v1/types/task_str'), [
    404,
    'unknown_type',
    'no kernel declares task_str: did you mean task_struct?',
  ])
  t.match(await problem('/v1/types/task_struct/members/pi/history'), [
    404,
    'unknown_type',
    /did you mean task_struct\.pid\?$/,
  ])
  t.match(await problem('/v1/types/fresh?kernel=6.1.0-1-amd64'), [404, 'unknown_type'])
  t.match(await problem('/v1/types/fresh?kernel=6.1.0-5-amd64'), [404, 'unknown_kernel'])
  t.match(await problem('/v1/diff?from=newest&to=nothing'), [404, 'unknown_kernel'])
  t.match(await problem('/v1/search?q=a&cursor=x'), [400, 'invalid_request'])
  t.match(await problem('/v1/search?q=a&limit=101'), [400, 'invalid_request'])
})

t.test('a client that has an answer is told so', async (t) => {
  const { url } = await indexed(t)
  const { headers } = await ask(`${url}/v1/types/mode/history`)
  t.match(headers['cache-control'], /max-age/)
  const again = await ask(`${url}/v1/types/mode/history`, { 'if-none-match': headers.etag! })
  t.equal(again.status, 304)
  t.equal(again.bytes.length, 0)
})

t.test('other origins may read what anyone may read, and nothing else', async (t) => {
  const { url } = await indexed(t)
  const allowed = async (path: string, base = url, headers = {}) =>
    (await ask(`${base}${path}`, { origin: 'http://other.example', ...headers })).headers[
      'access-control-allow-origin'
    ]
  t.equal(await allowed('/v1/types/mode'), '*')
  t.equal(await allowed('/v1/types/none'), '*', 'an error can be read too')
  t.equal(await allowed('/v1/kernels'), '*')
  t.equal(await allowed('/v1/btf/debian/12/x86_64/6.1.0-1-amd64'), '*')
  t.equal(await allowed('/v1/misses'), undefined)
  t.equal(await allowed('/metrics'), undefined)
  const closed = await indexed(t, { settings: { read: 'token' } })
  t.equal(await allowed('/v1/types/mode', closed.url), undefined)
})

t.test(
  'a service without an index says so; one whose index is not ready asks to wait',
  async (t) => {
    const { url } = await startTestService(t, records)
    t.match(await ask(`${url}/v1/types/mode`), { status: 404, json: { code: 'not_found' } })
    const gate = Promise.withResolvers<void>()
    const slow = async (store: Store) => {
      const all = await records(store)
      const get = store.get.bind(store)
      store.get = async (key, range) => {
        if (key.startsWith('blobs/')) await gate.promise
        return await get(key, range)
      }
      return all
    }
    const waiting = await startTestService(t, slow, {
      settings: { index: join(folder, 'waiting.sqlite') },
    })
    const { status, headers, json } = await ask(`${waiting.url}/v1/types/mode`)
    t.match({ status, json }, { status: 503, json: { code: 'unavailable' } })
    t.match(headers['retry-after'], /^\d+$/)
    t.equal((await ask(`${waiting.url}/v1/kernels`)).status, 200, 'only these routes wait')
    gate.resolve()
    t.equal((await answers(`${waiting.url}/v1/types/mode`)).status, 200)
  },
)

t.test('a kernel that is added or removed is in the index soon', async (t) => {
  const { url, store, catalog } = await indexed(t)
  const raw = compileBtf(folder, 'struct brand_new { int a; } x;')
  await putRecord(store, recordOf({ release: '6.1.0-11-amd64' }, { btf: await btfOf(store, raw) }))
  await catalog.refresh()
  const status = async () => (await ask(`${url}/v1/types/brand_new`)).status
  await until(status, (code) => code === 200)
  for await (const { key } of store.list('kernels/debian/12/x86_64/6.1.0-11'))
    await store.delete(key)
  await catalog.refresh()
  await until(status, (code) => code === 404)
  t.pass()
})

t.test('a damaged or lost file is made again while the service runs', async (t) => {
  const { url, index } = await indexed(t)
  rmSync(index)
  for (const suffix of ['-wal', '-shm']) rmSync(index + suffix, { force: true })
  await ask(`${url}/v1/types/mode`)
  t.equal((await answers(`${url}/v1/types/mode`)).status, 200)
  t.ok(existsSync(index))
  const other = join(folder, 'damaged.sqlite')
  writeFileSync(other, 'no database')
  const again = await startTestService(t, records, { settings: { index: other } })
  t.equal((await answers(`${again.url}/v1/types/mode`)).status, 200)
})

t.test('vmlinux.h is the header that compiles, with an ETag and in any encoding', async (t) => {
  const { url } = await startTestService(t, records)
  const path = `${url}/v1/btf/debian/12/x86_64/6.1.0-1-amd64/vmlinux.h`
  const { status, headers, bytes } = await ask(path)
  t.equal(status, 200)
  t.match(headers['content-type'], /^text\/plain/)
  t.match(bytes.toString(), /struct task_struct \{\n\tint pid;/)
  t.equal((await ask(path, { 'if-none-match': headers.etag! })).status, 304)
  t.equal((await ask(path, { 'accept-encoding': 'gzip' })).headers['content-encoding'], 'gzip')
  t.equal((await ask(`${url}/v1/btf/debian/12/x86_64/none/vmlinux.h`)).status, 404)
})

t.test('a POST of an object to vmlinux.h gives the header of what it uses', async (t) => {
  const { url } = await startTestService(t, pageRecords)
  const path = `${url}/v1/btf/debian/12/x86_64/6.1.0-1-amd64/vmlinux.h`
  const whole = (await ask(path)).bytes.toString()
  const post = (address: string) => {
    const bytes = readFileSync(coreObjects('el').get('task')!)
    return fetch(address, { method: 'POST', body: formOf({ name: 'o', bytes }) })
  }
  const answer = await post(path)
  const header = await answer.text()
  t.equal(answer.status, 200)
  t.match(answer.headers.get('content-type'), /^text\/plain/)
  t.equal(answer.headers.get('btfmill-kernel'), 'debian/12/x86_64/6.1.0-1-amd64')
  const definition = /struct task_struct \{[\s\S]*?\n\};/
  t.equal(definition.exec(header)?.[0], definition.exec(whole)?.[0])
  t.match(whole, /struct net_device \{/)
  t.notMatch(header, /struct net_device \{/)
  t.equal((await post(`${url}/v1/btf/debian/12/x86_64/none/vmlinux.h`)).status, 404)
})
