// The pages in a real browser: they work with and without scripts, axe finds no serious fault, nothing is requested from
// elsewhere, and no name runs as a script.
import { readFileSync } from 'node:fs'
import type { BrowserContextOptions, Page } from 'playwright-core'
import t, { type Test } from 'tap'
import { faultsOf } from '../../helpers/axe.ts'
import { startBrowser } from '../../helpers/browser.ts'
import { coreObjects } from '../../helpers/core.ts'
import { HOSTILE, HOSTILE_RELEASE, NEWEST, startPageService } from '../../helpers/page-service.ts'
import { ask } from '../../helpers/test-service.ts'

const { url } = await startPageService(t)
const browser = await startBrowser()
t.teardown(() => browser.close())

const DIFF = '/diff/debian/12/x86_64/6.1.0-1-amd64..debian/12/x86_64/6.1.0-2-amd64'
const hostileType = `/types/${encodeURIComponent(HOSTILE)}`
const hostileKernel = `/kernels/debian/12/x86_64/${encodeURIComponent(HOSTILE_RELEASE)}`

const PAGES = [
  ...['/', '/kernels', '/kernels?state=failed', NEWEST, '/kernels/debian/12/x86_64/5.4.0-1-amd64'],
  ...['/types', '/types/task_struct', '/types/pid_type', '/functions/vfs_read', '/search?q=6.1'],
  ...['/search?q=nothing', '/check', '/diff', DIFF, '/status', '/kernels/debian/12/x86_64/none'],
  ...[hostileType, hostileKernel, `/search?q=${encodeURIComponent(HOSTILE)}`, '/types/hostile_t'],
]

interface Watched {
  page: Page
  /** requests to other hosts */
  foreign: string[]
  /** errors of scripts, and what the policy forbade */
  errors: string[]
  /** calls of `hit`, which only a hostile name calls */
  hits: string[]
}

/** Opens a page that records what it must not do. */
async function open(t: Test, options: BrowserContextOptions = {}): Promise<Watched> {
  const context = await browser.newContext(options)
  t.teardown(() => context.close())
  const page = await context.newPage()
  page.setDefaultTimeout(20_000)
  const watched: Watched = { page, foreign: [], errors: [], hits: [] }
  await context.exposeFunction('hit', () => watched.hits.push(page.url()))
  page.on('request', (request) => {
    if (!request.url().startsWith(`${url}/`)) watched.foreign.push(request.url())
  })
  page.on('pageerror', (error) => watched.errors.push(String(error)))
  page.on('console', (message) => {
    // the browser reports the status of a page that is itself an error
    if (message.type() === 'error' && !/status of 4\d\d/.test(message.text()))
      watched.errors.push(`${page.url()}: ${message.text()}`)
  })
  return watched
}

t.test('every page is accessible, and asks no other host', async (t) => {
  const { page, foreign, errors, hits } = await open(t)
  for (const path of PAGES) {
    await page.goto(url + path)
    t.same(await faultsOf(page), [], path)
    t.equal(await page.locator('h1').count(), 1, `${path} has one heading`)
  }
  t.same({ foreign, errors, hits }, { foreign: [], errors: [], hits: [] })
})

t.test('every page has enough contrast where the system is dark', async (t) => {
  const { page } = await open(t, { colorScheme: 'dark' })
  for (const path of PAGES) {
    await page.goto(url + path)
    t.same(await faultsOf(page, ['color-contrast']), [], path)
  }
})

t.test('no page scrolls sideways on a narrow screen', async (t) => {
  const { page } = await open(t, { viewport: { width: 360, height: 740 } })
  const overflow = 'document.documentElement.scrollWidth - document.documentElement.clientWidth'
  for (const path of PAGES) {
    await page.goto(url + path)
    t.equal(await page.evaluate<number>(overflow), 0, path)
  }
})

t.test('hostile names are shown as text', async (t) => {
  const { page, hits, errors } = await open(t)
  await page.goto(url + hostileType)
  t.match(await page.locator('h1').textContent(), HOSTILE)
  await page.goto(url + hostileKernel)
  t.match(await page.locator('h1').textContent(), HOSTILE_RELEASE)
  t.match(await page.getByText('BTF could not be made').textContent(), HOSTILE)
  await page.goto(`${url}/status`)
  t.match(await page.getByText(HOSTILE).first().textContent(), 'vmlinux has no DWARF')
  t.same({ hits, errors }, { hits: [], errors: [] })
})

t.test('a script that got into a page would not run', async (t) => {
  const { page, hits } = await open(t)
  await page.goto(url)
  await page.evaluate(`document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=hit()>')`)
  await page.evaluate(
    `document.body.append(Object.assign(document.createElement('script'), { text: 'hit()' }))`,
  )
  await page.waitForTimeout(100)
  t.same(hits, [])
})

t.test('the first Tab leads to the content, and / to the search box', async (t) => {
  const { page } = await open(t)
  await page.goto(url + NEWEST)
  await page.keyboard.press('Tab')
  t.equal(await page.evaluate('document.activeElement.textContent'), 'Skip to the content')
  await page.keyboard.press('Enter')
  t.equal(await page.evaluate('document.activeElement.id'), 'content')
  await page.keyboard.press('/')
  t.equal(await page.evaluate('document.activeElement.type'), 'search')
})

t.test('without scripts, people search, filter, choose a kernel, compare and check', async (t) => {
  const { page, errors } = await open(t, { javaScriptEnabled: false })
  await page.goto(url)
  await page.getByRole('searchbox').fill('task_struct.pid')
  await page.getByRole('searchbox').press('Enter')
  t.equal(page.url(), `${url}/types/task_struct#m-pid`)
  await page.locator('select[name=kernel]').selectOption({ label: '6.1.0-2-s390x' })
  await page.getByRole('button', { name: 'Show' }).click()
  t.match(page.url(), '/types/task_struct?kernel=debian%2F11%2Fs390x%2F6.1.0-2-s390x')
  t.match(await page.locator('.lead').textContent(), /6\.1\.0-2-s390x/)

  await page.goto(`${url}/kernels`)
  await page.getByRole('link', { name: /^failed/ }).click()
  t.equal(page.url(), `${url}/kernels?state=failed`)
  await page.getByLabel(/^Release/).fill('5.4')
  await page.getByRole('button', { name: 'Filter' }).click()
  t.equal(page.url(), `${url}/kernels?state=failed&release=5.4`)
  t.match(await page.locator('.lead').textContent(), /1 of 7 kernels/)

  await page.goto(`${url}/diff`)
  await page.getByLabel(/^From/).fill('6.1.0-1-amd64')
  await page.getByRole('button', { name: 'Compare' }).click()
  t.equal(page.url(), url + DIFF)
  await page.getByLabel(/part of the name/).fill('vfs')
  await page.getByRole('button', { name: 'Filter' }).click()
  t.match(await page.locator('main').textContent(), /1 name: with “vfs”/)

  await page.goto(`${url}/check`)
  await page.setInputFiles('input[type=file]', coreObjects('el').get('exists')!)
  await page.getByRole('button', { name: 'Check' }).click()
  t.match(page.url(), /\/check\/[0-9a-f]{64}$/)
  await page.getByRole('heading', { name: 'Series' }).waitFor() // a busy machine shows its progress first
  t.match(await page.locator('main').textContent(), /size_of_missing/)
  t.same(errors, [])
})

t.test('an object that is dropped on the page is checked', async (t) => {
  const { page, errors, foreign } = await open(t)
  await page.goto(`${url}/check`)
  const bytes = readFileSync(coreObjects('el').get('attach')!).toString('base64')
  await page.evaluate(`{
    const transfer = new DataTransfer()
    const bytes = Uint8Array.from(atob('${bytes}'), (char) => char.charCodeAt(0))
    transfer.items.add(new File([bytes], 'dropped<b>.bpf.o'))
    const drop = new DragEvent('drop', { dataTransfer: transfer, bubbles: true, cancelable: true })
    document.querySelector('.drop').dispatchEvent(drop)
  }`)
  await page.waitForURL(/\/check\/[0-9a-f]{64}$/)
  t.match(await page.locator('h1').textContent(), 'dropped<b>.bpf.o')
  await page.getByText('missing_kfunc:', { exact: false }).first().click()
  t.match(await page.locator('details[open]').first().textContent(), /attach\.bpf\.c:\d+/)
  t.same(await faultsOf(page), [])
  t.equal(await page.evaluate<number>(`document.querySelector('img[alt^=BTF]').naturalHeight`), 20)
  const saved = page.waitForEvent('download')
  await page.getByRole('link', { name: /Download BTF/ }).click()
  t.match((await saved).suggestedFilename(), /\.tar\.xz$/)
  t.same({ errors, foreign }, { errors: [], foreign: [] })
})

t.test('links of a page lead to pages that exist', async (t) => {
  const { page } = await open(t)
  const seen = new Set<string>()
  for (const path of PAGES) {
    await page.goto(url + path)
    const links = await page.evaluate<string[]>(
      `Array.from(document.querySelectorAll('a[href]'), (a) => a.getAttribute('href'))`,
    )
    for (const link of links) seen.add(link.split('#')[0]!)
  }
  const pages = [...seen].filter((link) => /^\/(?!docs|v1)/.test(link))
  t.ok(pages.length > 30, `${pages.length} links`)
  for (const link of pages) {
    const { status } = await ask(url + link)
    // other kernels may lack a type, and the home page offers names that small kernels lack
    const allowed = /^\/(?:types|functions)\/./.test(link) ? [200, 302, 404] : [200, 302]
    t.ok(allowed.includes(status), `${link}: ${status}`)
  }
})

t.test('a copy button copies the command', async (t) => {
  const { page } = await open(t, { permissions: ['clipboard-read', 'clipboard-write'] })
  await page.goto(url + NEWEST)
  await page.getByRole('button', { name: 'Copy: download' }).click()
  await page.getByText('Copied').waitFor()
  const copied = await page.evaluate<string>('navigator.clipboard.readText()')
  t.equal(
    copied,
    `curl -fsSL --compressed -o vmlinux.btf '${url}/v1/btf/debian/12/x86_64/6.1.0-2-amd64'`,
  )
})
