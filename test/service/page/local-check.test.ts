// /check on the machine of whoever asks: a browser gets the library, no request takes anything of the object, and the
// results are those of /v1/check.
import { mkdirSync, readFileSync } from 'node:fs'
import { basename } from 'node:path'
import t, { type Test } from 'tap'
import { openObject } from '../../../bpf/index.ts'
import { generateFiles } from '../../../generator/index.ts'
import { checkLocally, type LocalKernel } from '../../../service/page/local-check.ts'
import { openStore } from '../../../storage/index.ts'
import { faultsOf } from '../../helpers/axe.ts'
import { startBrowser } from '../../helpers/browser.ts'
import { formOf } from '../../helpers/bundles.ts'
import { caseFile } from '../../helpers/cases.ts'
import { coreObjects } from '../../helpers/core.ts'
import { startPageService } from '../../helpers/page-service.ts'
import { ask } from '../../helpers/test-service.ts'

const directory = t.testdir({ scratch: {} })
const store = await openStore('memory:')
mkdirSync(directory, { recursive: true })
await generateFiles(
  [caseFile('kernel-with-module-without-types.deb')],
  { distro: 'custom', version: '1' },
  { store, scratch: `${directory}/scratch`, modules: ['*'] },
)
const { url } = await startPageService(t, { store })
const MODULE_OBJECT = caseFile('module-type.o')

/** The lines of /v1/check for an object and the kernels of a query. */
async function linesOfService(path: string, query = ''): Promise<string> {
  const body = formOf({ name: basename(path), bytes: readFileSync(path) })
  const answer = await fetch(`${url}/v1/check${query}`, { method: 'POST', body })
  if (answer.status !== 200) throw new Error(`HTTP status ${answer.status}`)
  return await answer.text()
}

async function kernelsOf(query = ''): Promise<LocalKernel[]> {
  const { json } = await ask(`${url}/check/kernels${query}`)
  return json as unknown as LocalKernel[]
}

t.test('a check on the machine gives the lines of /v1/check, for every object', async (t) => {
  const asked: string[] = []
  const get = async (path: string) => {
    asked.push(path)
    const { status, bytes } = await ask(url + path)
    return status === 200 ? bytes : undefined
  }
  const kernels = await kernelsOf()
  t.equal(kernels.length, 5)
  for (const path of [...coreObjects('el').values(), MODULE_OBJECT]) {
    const object = openObject(readFileSync(path))
    const lines: string[] = []
    for await (const { line } of checkLocally({ name: basename(path), object }, kernels, get))
      lines.push(line)
    t.equal(lines.join(''), await linesOfService(path), basename(path))
  }
  t.ok(asked.some((path) => path.startsWith('/check/modules/')))
  t.ok(asked.some((path) => path.startsWith('/check/functions/')))
})

t.test(
  'people choose kernels: the newest of each series, of a distribution, a series, or all',
  async (t) => {
    const names = async (query: string) =>
      (await kernelsOf(query)).map(({ row }) => row.kernel.release)
    t.same((await names('?newest=true')).slice(0, 2), ['5.3.18-57-test', '6.1.0-2-s390x'])
    t.same(await names('?newest=true&distro=debian'), ['6.1.0-2-s390x', '6.1.0-2-amd64'])
    const series = ['6.0.0-9-amd64', '6.1.0-1-amd64', '6.1.0-2-amd64']
    t.same(await names('?series=debian/12/x86_64/6.1.0-1-amd64'), series)
    t.same(await names('?series=debian/12/x86_64/none'), [])
  },
)

t.test('modules of the library never change under their address, and are JavaScript', async (t) => {
  const { bytes } = await ask(`${url}/check`)
  const worker = /data-worker="([^"]+)"/.exec(bytes.toString())![1]!
  const { status, headers, bytes: code } = await ask(url + worker)
  t.equal(status, 200)
  t.equal(headers['content-type'], 'text/javascript; charset=utf-8')
  t.match(headers['cache-control'], /immutable/)
  t.equal(
    headers['content-security-policy'],
    "default-src 'none';script-src 'self';connect-src 'self'",
  )
  t.notMatch(code.toString(), /^interface |: Promise</m)
  const [base] = worker.split('service/')
  t.equal((await ask(`${url}${base}bpf/index.ts`)).status, 200)
  for (const path of ['package.json', 'bpf/package.json', 'service/app.ts', '../style.css', 'bpf/'])
    t.equal((await ask(url + base + path)).status, 404, path)
  t.equal((await ask(`${url}/assets/modules-0000000000000000/bpf/index.ts`)).status, 404)
})

const browser = await startBrowser()
t.teardown(() => browser.close())

/** Opens /check with the choice that keeps an object on the machine. */
async function openLocal(t: Test) {
  const context = await browser.newContext({ acceptDownloads: true })
  t.teardown(() => context.close())
  const page = await context.newPage()
  page.setDefaultTimeout(30_000)
  const requests: string[] = []
  const errors: string[] = []
  context.on('request', (request) => requests.push(`${request.method()} ${request.url()}`))
  page.on('pageerror', (error) => errors.push(String(error)))
  page.on('console', (message) => {
    if (message.type() === 'error') errors.push(message.text())
  })
  await page.goto(`${url}/check`)
  t.equal(await page.getByRole('button', { name: 'Cancel' }).isVisible(), false)
  await page.getByLabel('Keep the object on this machine').check()
  return { page, requests, errors }
}

t.test('an object that is kept on the machine is not sent, and gets the same matrix', async (t) => {
  for (const path of [coreObjects('el').get('attach')!, MODULE_OBJECT]) {
    const { page, requests, errors } = await openLocal(t)
    t.same(await faultsOf(page), [])
    const posts = async () =>
      (await ask(`${url}/metrics`)).bytes.toString().match(/_count\{method="POST".*/g)
    const before = await posts()
    await page.locator('select').selectOption({ label: 'all: 5 kernels' })
    await page.setInputFiles('input[type=file]', path)
    await page.getByRole('heading', { name: 'Series' }).waitFor()
    t.match(await page.title(), `${basename(path)} works on`)
    t.same(await faultsOf(page), [])
    t.same(await posts(), before, 'the service got no POST')
    t.ok(requests.some((one) => one.startsWith(`GET ${url}/v1/btf/sha256/`)))
    t.same(
      requests.filter((one) => !one.startsWith(`GET ${url}/`)),
      [],
    )
    const download = page.waitForEvent('download')
    await page.getByRole('link', { name: 'Save as lines of JSON' }).click()
    const lines = readFileSync(await (await download).path(), 'utf8')
    t.equal(lines, await linesOfService(path))

    const matrix = () => page.locator('table').allInnerTexts()
    const here = await matrix()
    await page.goto(`${url}/check`)
    await page.setInputFiles('input[type=file]', path)
    await page.waitForURL(/\/check\/[0-9a-f]{64}$/)
    await page.getByRole('heading', { name: 'Series' }).waitFor()
    t.same(here, await matrix())
    t.same(errors, [])
  }
})

t.test('where BTF is in a bucket, the browser still reads from the service alone', async (t) => {
  const { page, requests, errors } = await openLocal(t)
  const location = 'http://bucket.example/blob'
  await page.route('**/v1/btf/**', async (route) => {
    if (route.request().headers().range === 'bytes=0-') return await route.continue()
    return await route.fulfill({ status: 307, headers: { location } })
  })
  await page.setInputFiles('input[type=file]', coreObjects('el').get('attach')!)
  await page.getByRole('heading', { name: 'Series' }).waitFor()
  t.same(
    requests.filter((one) => !one.startsWith(`GET ${url}/`)),
    [],
  )
  t.same(errors, [])
})

t.test('a file that is no object is refused, and a check can be cancelled', async (t) => {
  const { page, errors } = await openLocal(t)
  const file = { name: 'x.o', mimeType: 'text/plain', buffer: Buffer.from('x') }
  await page.setInputFiles('input[type=file]', file)
  await page.getByText('This is not a BPF object').waitFor()
  await page.route('**/v1/btf/**', () => {}) // never answered
  await page.setInputFiles('input[type=file]', coreObjects('el').get('attach')!)
  await page.getByText(/0 of \d kernels are done/).waitFor()
  await page.getByRole('button', { name: 'Cancel' }).click()
  t.equal(await page.locator('.drop [role=status]').textContent(), 'The check was cancelled.')
  t.equal(await page.locator('progress').isVisible(), false)
  t.same(errors, [])
})
