// The pages over HTTP: what they show, as HTML and as JSON, how they are cached, and that they leave other routes alone.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import type { BtfGenerator, Generation } from '../../../service/demand/generation.ts'
import { addToken, Tokens } from '../../../service/http/token.ts'
import type { CheckView } from '../../../service/page/check-page.ts'
import type { DiffView } from '../../../service/page/diff-page.ts'
import type { KernelView } from '../../../service/page/kernel-page.ts'
import type { KernelsView } from '../../../service/page/kernels-page.ts'
import type { SearchView } from '../../../service/page/search-page.ts'
import type { TypeView } from '../../../service/page/type-page.ts'
import { coreObjects } from '../../helpers/core.ts'
import { BUILD_ID, NEWEST, startPageService } from '../../helpers/page-service.ts'
import { ask } from '../../helpers/test-service.ts'

const { url, catalog } = await startPageService(t)
const JSON_TYPE = { accept: 'application/json' }
const DIFF = '/diff/debian/12/x86_64/6.1.0-1-amd64..debian/12/x86_64/6.1.0-2-amd64'

/** A page as text, and what it shows. */
async function page<View>(path: string) {
  const [html, json] = [await ask(url + path), await ask(url + path, JSON_TYPE)]
  return { text: html.bytes.toString(), view: json.json as View }
}

const PATHS = [
  ...['/', '/kernels', '/kernels?distro=debian&state=made', NEWEST, '/types', '/types/task_struct'],
  ...['/functions/vfs_read', '/check', '/diff', DIFF, '/status', '/search?q=6.1'],
]

t.test('every page is HTML by default, and JSON for a client that prefers it', async (t) => {
  for (const path of PATHS) {
    const html = await ask(url + path)
    t.equal(html.status, 200, path)
    t.equal(html.headers['content-type'], 'text/html; charset=utf-8', path)
    t.match(html.headers.vary, /\baccept\b/, path)
    t.ok(html.bytes.length < 150 * 1024, `${path} has ${html.bytes.length} bytes`)
    const browser = await ask(url + path, { accept: 'text/html,application/xhtml+xml,*/*;q=0.8' })
    t.match(browser.headers['content-type'], /^text\/html/, path)
    const json = await ask(url + path, JSON_TYPE)
    t.match(json.headers['content-type'], /^application\/json/, path)
    t.type(json.json, 'object', path)
    const weighed = await ask(url + path, { accept: 'text/html;q=0.5, application/json' })
    t.match(weighed.headers['content-type'], /^application\/json/, path)
  }
})

t.test('every page has a title, a description and a canonical address of its own', async (t) => {
  const seen = new Set<string>()
  for (const path of PATHS) {
    const text = (await ask(url + path)).bytes.toString()
    const title = /<title>([^<]+) · btfmill<\/title>/.exec(text)?.[1]
    t.ok(title && !seen.has(title), `${path}: ${title}`)
    seen.add(title!)
    t.match(text, /<meta name="description" content="[^"]{20,}">/, path)
    const canonical = /<link rel="canonical" href="([^"]+)">/.exec(text)?.[1]
    t.ok(canonical?.startsWith(url), `${path}: ${canonical}`)
    t.equal((await ask(canonical!.replaceAll('&amp;', '&'))).status, 200, path)
  }
})

t.test('a page allows nothing but files of this service', async (t) => {
  for (const path of PATHS) {
    const { headers, bytes } = await ask(url + path)
    t.match(headers['content-security-policy'], /^default-src 'none';/, path)
    t.notMatch(headers['content-security-policy'], /unsafe|\*|http|data:/, path)
    t.notMatch(bytes.toString(), /<[^>]+ (?:style|on\w+)=|<style|<script(?! src="\/assets\/)/, path)
  }
})

t.test('a page that did not change is not sent again', async (t) => {
  const { headers } = await ask(url + NEWEST)
  t.equal(headers['cache-control'], 'public, max-age=60')
  const again = await ask(url + NEWEST, { 'if-none-match': headers.etag! })
  t.equal(again.status, 304)
  t.equal(again.bytes.length, 0)
  const json = await ask(url + NEWEST, { ...JSON_TYPE, 'if-none-match': headers.etag! })
  t.equal(json.status, 200, 'the JSON has another ETag')
  const zipped = await ask(url + NEWEST, { 'accept-encoding': 'gzip' })
  t.equal(zipped.headers['content-encoding'], 'gzip')
  t.not(zipped.headers.etag, headers.etag)
  t.equal((await ask(`${url}/status`)).headers['cache-control'], 'no-store')
})

t.test('files of the pages never change under their address', async (t) => {
  const text = (await ask(`${url}/`)).bytes.toString()
  const files = [...text.matchAll(/"(\/assets\/[^"]+)"/g)].map(([, path]) => path!)
  t.equal(new Set(files).size, 3)
  for (const path of files) {
    const { status, headers } = await ask(url + path)
    t.equal(status, 200, path)
    t.match(headers['cache-control'], /immutable/, path)
  }
  t.equal((await ask(`${url}/assets/style-0.css`)).status, 404)
})

t.test('/kernels counts, filters and pages kernels; the choice is in the address', async (t) => {
  const { view } = await page<KernelsView>('/kernels')
  t.equal(view.total, 7)
  t.same(view.heatMap.columns, ['5.3', '5.4', '5.10', '6.0', '6.1'])
  const states = view.kernels.map(({ release, state }) => `${release} ${state}`)
  t.same(states.slice(0, 5), [
    '6.1.0-2-amd64 made',
    '6.1.0-1-amd64 made',
    '6.0.0-9-amd64 own',
    '5.10.0-1-amd64 own',
    '5.4.0-1-amd64 failed',
  ])
  t.equal((await page<KernelsView>('/kernels?state=failed')).view.found, 2)
  t.equal((await page<KernelsView>('/kernels?arch=s390x&line=6.1')).view.found, 1)
  t.equal((await page<KernelsView>('/kernels?release=6.1.*-amd64')).view.found, 2)
  t.equal((await page<KernelsView>('/kernels?release=nothing')).view.found, 0)
  const after = 'debian/12/x86_64/6.0.0-9-amd64'
  const rest = await page<KernelsView>(`/kernels?after=${after}`)
  t.equal(rest.view.kernels[0]?.release, '5.10.0-1-amd64')
  t.equal((await ask(`${url}/kernels?distribution=debian`)).status, 400, 'an unknown parameter')
})

t.test('/kernels/… says how the BTF was made, and knows its neighbours', async (t) => {
  const { text, view } = await page<KernelView>(NEWEST)
  t.match(text, /pahole 1\.24 made this BTF from the debug info/)
  t.match(text, /match the SHA-256 in the index that the distribution has signed/)
  t.equal(view.previous?.release, '6.1.0-1-amd64')
  t.equal(view.previous?.diff, DIFF)
  t.notOk('next' in view)
  t.match(
    text,
    new RegExp(`'${url}/v1/btf/debian/12/x86_64/6.1.0-2-amd64'`.replaceAll("'", '&#39;')),
  )
  t.equal((await ask(`${url}${view.links.immutable}`)).status, 200)
  t.match((await ask(`${url}${view.links.header}`)).bytes.toString(), /struct task_struct \{/)
  const failed = await page<KernelView>('/kernels/debian/12/x86_64/5.4.0-1-amd64')
  t.match(failed.text, /BTF could not be made: vmlinux has no DWARF/)
  t.notMatch(failed.text + JSON.stringify(failed.view), /secret/, 'not the log of the tool')
  const taken = await page<KernelView>('/kernels/debian/11/s390x/6.1.0-2-s390x')
  t.match(taken.text, /took the BTF from http:\/\/btf\.example on 2026-11-02\. ?<\/p>/)
  t.match(taken.text, /signed catalog names the SHA-256/)
  const own = await page<KernelView>('/kernels/debian/12/x86_64/5.10.0-1-amd64')
  t.match(own.text, /the service holds no copy/)
})

t.test('/types/NAME lists offsets, holes, users and a picture; names are links', async (t) => {
  const { text, view } = await page<TypeView>('/types/task_struct')
  t.equal(view.choice.release, '6.1.0-2-amd64', 'the newest kernel')
  const { listing, lines, picture } = view.types[0]!
  t.equal(listing.kind, 'struct')
  const pid = lines.find((line) => line.id === 'm-pid')
  t.match(pid, { text: [{ kind: 'typedef', name: 'pid_t' }, ' pid;'] })
  t.match(picture, /^<svg [^>]+role="group"/)
  t.match(text, /<a href="\/types\/pid_t">pid_t<\/a> pid;/)
  t.ok(view.users.functionCount > 0, 'functions that take it')
  const old = await page<TypeView>('/types/task_struct?kernel=debian/12/x86_64/6.1.0-1-amd64')
  t.match(old.text, /<a href="\/types\/pid_t\?kernel=debian\/12\/x86_64\/6\.1\.0-1-amd64">/)
  const typedef = await page<TypeView>('/types/pid_t')
  t.match(typedef.text.replace(/<[^>]+>/g, ''), /typedef .*pid_t;/)
  const values = await page<TypeView>('/types/pid_type')
  t.match(values.text, /PIDTYPE_TGID = /)
  const missing = await ask(`${url}/types/task`, { accept: 'text/html' })
  t.equal(missing.status, 404)
  t.match(missing.bytes.toString(), /<a href="\/types\/task_struct">struct task_struct<\/a>/)
  t.equal((await ask(`${url}/types/x?kernel=debian/12/x86_64/none`)).json?.code, 'unknown_kernel')
})

t.test('/functions/NAME has the prototype and what the symbol table says', async (t) => {
  const { text, view } = await page<TypeView>('/functions/vfs_read')
  t.match(text, /Some calls are inlined/)
  t.match(text, /vfs_read\.isra\.0/)
  t.match(view.attach, { known: true, present: true })
  t.equal((await ask(`${url}/types/vfs_read`)).headers.location, '/functions/vfs_read')
  t.equal((await ask(`${url}/functions/task_struct`)).headers.location, '/types/task_struct')
})

t.test('/search goes to a unique hit, and lists others', async (t) => {
  const goes = async (q: string) =>
    (await ask(`${url}/search?q=${encodeURIComponent(q)}`)).headers.location
  const { sha256 } = catalog.find({
    ...{ distro: 'debian', version: '12', arch: 'x86_64', release: '6.1.0-2-amd64' },
  })[0]!.btf!
  t.equal(await goes('6.1.0-2-amd64'), NEWEST)
  t.equal(await goes(' 6.1.0-2-amd64 '), NEWEST)
  t.equal(await goes('debian/12/x86_64/6.1.0-2-amd64'), NEWEST)
  t.equal(await goes(BUILD_ID.toUpperCase()), NEWEST)
  t.equal(await goes(sha256), NEWEST)
  t.equal(await goes('Linux host 6.1.0-2-amd64 #1 SMP x86_64 GNU/Linux'), NEWEST)
  t.equal(await goes('task_struct'), '/types/task_struct')
  t.equal(await goes('struct task_struct {'), '/types/task_struct')
  t.equal(await goes('task_struct.pid'), '/types/task_struct#m-pid')
  t.equal(await goes('task_struct->pid'), '/types/task_struct#m-pid')
  t.equal(await goes('vfs_read()'), '/functions/vfs_read')
  t.equal(await goes(''), '/')
  const part = await page<SearchView>('/search?q=6.1.0')
  t.equal(part.view.found, 3)
  const names = await page<SearchView>('/search?q=task')
  t.same(names.view.names[0]?.href, '/types/task_struct')
  const typo = await page<SearchView>('/search?q=6.1.0-2-amd46')
  t.same(typo.view.similar[0], '6.1.0-2-amd64')
  t.equal((await ask(`${url}/search?q=struct+task_struct`)).headers.location, '/types/task_struct')
})

t.test('/diff/A..B lists structs first, filters, and takes bare releases', async (t) => {
  const { text, view } = await page<DiffView>(DIFF)
  t.same(view.entries[0]?.kind, 'struct')
  t.match(text, /vfs_read/)
  const functions = await page<DiffView>(`${DIFF}?kind=func&change=added`)
  t.same(
    functions.view.entries.map(({ name }) => name),
    ['task_struct_of', 'vfs_read'],
  )
  t.equal((await page<DiffView>(`${DIFF}?name=vfs`)).view.found, 1)
  const equal = await page<DiffView>(
    '/diff/debian/12/x86_64/6.1.0-1-amd64..debian/12/x86_64/6.0.0-9-amd64',
  )
  t.match(equal.text, /Nothing: both kernels declare the same/)
  const asked = await ask(`${url}/diff?a=6.1.0-1-amd64&b=6.1.0-2-amd64`)
  t.equal(asked.headers.location, DIFF)
  t.equal((await ask(`${url}/diff/a..b`)).status, 400)
  t.equal((await ask(`${url}/diff?a=none&b=6.1.0-2-amd64`)).status, 404)
})

const upload = async (bytes: Uint8Array<ArrayBuffer>, name = 'task.bpf.o') => {
  const form = new FormData()
  form.append('object', new Blob([bytes]), name)
  return await fetch(`${url}/check`, { method: 'POST', body: form, redirect: 'manual' })
}
const object = (name: string) => new Uint8Array(readFileSync(coreObjects('el').get(name)!))

t.test('/check keeps an object, and shows on which kernels it works', async (t) => {
  const sent = await upload(object('exists'), 'exists.bpf.o')
  t.equal(sent.status, 303)
  const path = sent.headers.get('location')!
  t.match(path, /^\/check\/[0-9a-f]{64}$/)
  const { view, text } = await page<CheckView>(path)
  t.match(view, { name: 'exists.bpf.o', total: 4 })
  const reason = view.reasons.find(({ code }) => code === 'missing_type')
  t.match(reason, { program: 'size_of_missing', verdict: 'no', source: { line: Number } })
  t.match(reason?.series[0], { first: '6.0.0-9-amd64', last: '6.1.0-2-amd64', count: 3 })
  t.match(text, /nowhere/)
  const badge = await ask(`${url}${path}/badge.svg`)
  t.match(badge.headers['content-type'], /^image\/svg\+xml/)
  t.match(badge.bytes.toString(), /of 4 kernels/)
  t.equal(badge.headers['cross-origin-resource-policy'], 'cross-origin')
  const works = (await upload(object('task'))).headers.get('location')!
  const bundle = await ask(`${url}${works}/bundle`)
  t.equal(bundle.status, 200)
  t.match(bundle.headers['content-disposition'], /attachment/)
})

t.test('/check refuses what is not a BPF object, and forgets what it does not keep', async (t) => {
  const bad = await upload(new Uint8Array([1, 2, 3]))
  t.equal(bad.status, 422)
  t.match(await bad.json(), { code: 'invalid_object' })
  t.match(await ask(`${url}/check/${'0'.repeat(64)}`), { status: 404, json: { code: 'not_found' } })
  t.equal((await ask(`${url}/check/x`)).status, 400)
})

t.test('pages and routes of clients do not take each other’s addresses', async (t) => {
  t.equal(
    (await ask(`${url}/v1/kernels`)).headers['content-type'],
    'application/json; charset=utf-8',
  )
  t.match(await ask(`${url}/debian/12/x86_64/6.1.0-2-amd64.btf.tar.xz`), {
    status: 200,
    headers: { 'content-type': 'application/x-xz' },
  })
  for (const first of 'assets check diff functions kernels search status types'.split(' ')) {
    const { status, json } = await ask(`${url}/${first}/12/x86_64/6.1.0.btf.tar.xz`)
    t.ok(status === 404 || status === 400, `${first}: ${status}`)
    t.not(json?.code, 'unknown_kernel', `${first} is not a distribution`)
    t.equal((await ask(`${url}/newest/${first}`)).status, 404)
  }
})

t.test('an error is a page for browsers, and a problem document for others', async (t) => {
  const path = `${url}/kernels/debian/12/x86_64/none`
  const html = await ask(path, { accept: 'text/html,*/*;q=0.8' })
  t.equal(html.status, 404)
  t.match(html.headers['content-type'], /^text\/html/)
  t.match(html.bytes.toString(), /There is no such kernel/)
  t.equal(html.headers['cache-control'], 'no-store')
  const problem = await ask(path, { accept: '*/*' })
  t.match(problem, { status: 404, json: { code: 'unknown_kernel' } })
  t.match(problem.headers['content-type'], /^application\/problem\+json/)
})

t.test('a private service shows its pages to nobody without a token', async (t) => {
  const secret = await startPageService(t, { settings: { read: 'token' } })
  for (const path of PATHS) {
    const { status, bytes } = await ask(secret.url + path, { accept: 'text/html' })
    t.equal(status, 401, path)
    t.notMatch(bytes.toString(), /6\.1\.0-2-amd64|vfs_read/, path)
  }
})

t.test('commands name the host that the client asked, and nothing else', async (t) => {
  const text = async (host: string) => (await ask(url + NEWEST, { host })).bytes.toString()
  t.match(await text('btf.example:8080'), /http:\/\/btf\.example:8080\/v1\/btf/)
  t.notMatch(await text(`x';reboot;'`), /reboot/)
})

t.test('/btf-fetch is the script that the home page names', async (t) => {
  const { bytes, headers } = await ask(`${url}/btf-fetch`)
  t.match(headers['content-type'], /^text\/plain/)
  t.same(bytes, readFileSync(join(import.meta.dirname, '../../../bpf/example/btf-fetch')))
})

t.test('/status starts a generation for the holder of a token', async (t) => {
  const kernel = { distro: 'debian', version: '12', arch: 'x86_64', release: '6.1.0-7-amd64' }
  const job: Generation = { id: 'job-1', kernel, state: 'searching', packages: [] }
  const submitted: string[] = []
  const generator: BtfGenerator = {
    underWay: 0,
    submit: ({ release }) => {
      submitted.push(release)
      return job
    },
    get: (id) => (id === job.id ? job : undefined),
    async *watch() {
      await new Promise(() => {}) // for as long as the test
    },
  }
  const path = join(t.testdir({}), 'tokens.json')
  const token = await addToken(path, { name: 'me', scopes: ['generate'] })
  const service = await startPageService(t, {
    generator,
    tokens: await Tokens.open(path),
    settings: { generate: 'on-miss', generateAnonymous: 'never', tokens: path },
  })
  await ask(`${service.url}/v1/btf/debian/12/x86_64/6.1.0-7-amd64`)
  const before = await ask(`${service.url}/status`, JSON_TYPE)
  t.match(before.json, { misses: [{ release: '6.1.0-7-amd64', count: 1 }], generation: 'token' })
  t.match(before.json, { sources: [{ source: 'debian', failure: { code: 'unreachable' } }] })
  t.notMatch(before.bytes.toString(), /secret/)
  const post = (fields: Record<string, string>) =>
    fetch(`${service.url}/status`, {
      method: 'POST',
      body: new URLSearchParams(fields),
      redirect: 'manual',
    })
  const name = 'debian/12/x86_64/6.1.0-7-amd64'
  t.equal((await post({ kernel: name })).status, 403)
  t.equal((await post({ kernel: name, token: 'wrong' })).status, 401)
  t.equal((await post({ kernel: 'x', token })).status, 400)
  t.same(submitted, [])
  const started = await post({ kernel: name, token })
  t.equal(started.status, 303)
  t.equal(started.headers.get('location'), '/status?job=job-1')
  t.same(submitted, ['6.1.0-7-amd64'])
  const after = await ask(`${service.url}/status?job=job-1`, JSON_TYPE)
  t.match(after.json, { jobs: [{ id: 'job-1' }], started: { state: 'searching' } })
})
