// `npm run screenshots [-- --store DIR] [FOLDER]` writes pictures of all pages, in light and dark and on a narrow screen.
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import type { Browser } from 'playwright-core'
import { startBrowser } from '../helpers/browser.ts'
import { coreObjects } from '../helpers/core.ts'
import { serve } from './btfmill.ts'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    store: { type: 'string', default: 'btfmill-store' },
    only: { type: 'string', multiple: true },
  },
})
const folder = positionals[0] ?? '.cache/screenshots'

const LOOKS = {
  light: { colorScheme: 'light', viewport: { width: 1200, height: 900 } },
  dark: { colorScheme: 'dark', viewport: { width: 1200, height: 900 } },
  narrow: { colorScheme: 'light', viewport: { width: 390, height: 800 } },
} as const

/** Picture heights above this are cut: a list may be long. */
const MAX_HEIGHT = 2600

async function pagesOf(url: string): Promise<Record<string, string>> {
  const json = async (path: string) =>
    (await (await fetch(url + path, { headers: { accept: 'application/json' } })).json()) as {
      kernels: { name: string; state: string; href: string }[]
    }
  const { kernels } = await json('/kernels')
  const made = kernels.filter(({ state }) => state !== 'failed')
  const [newest] = made
  if (!newest) throw new Error(`the store ${values.store} has no BTF`)
  const { previous } = (await (
    await fetch(url + newest.href, { headers: { accept: 'application/json' } })
  ).json()) as { previous?: { diff?: string } }
  return {
    home: '/',
    kernels: '/kernels',
    kernel: newest.href,
    search: '/search?q=sock',
    types: '/types',
    type: '/types/task_struct',
    'small-type': '/types/sock_common',
    enum: '/types/pid_type',
    function: '/functions/vfs_read',
    history: '/types/task_struct/history',
    member: '/types/task_struct.__state',
    'function-history': '/functions/vfs_read/history',
    check: '/check',
    ...(previous?.diff && { diff: previous.diff }),
    'diff-form': '/diff',
    status: '/status',
    error: '/kernels/debian/1/x86_64/none',
  }
}

/** Waits until the index of all types is there; at most for the time that it takes over some hundred kernels. */
async function untilIndexed(url: string): Promise<void> {
  for (let seconds = 0; seconds < 600; seconds++) {
    const { status } = await fetch(`${url}/v1/stats`)
    if (status !== 503) return
    await sleep(1000)
  }
  throw new Error('the index of all types is not there after 10 minutes')
}

async function shoot(browser: Browser, url: string, look: keyof typeof LOOKS): Promise<void> {
  const context = await browser.newContext(LOOKS[look])
  const page = await context.newPage()
  page.setDefaultTimeout(120_000) // a machine may be busy
  const save = async (name: string) => {
    const height = await page.evaluate<number>('document.documentElement.scrollHeight')
    const { width } = LOOKS[look].viewport
    await page.screenshot({
      path: join(folder, `${name}-${look}.png`),
      fullPage: true,
      timeout: 180_000,
      clip: { x: 0, y: 0, width, height: Math.min(height, MAX_HEIGHT) },
    })
    console.log(join(folder, `${name}-${look}.png`))
  }
  for (const [name, path] of Object.entries(await pagesOf(url))) {
    if (values.only && !values.only.includes(name)) continue
    await page.goto(url + path)
    await save(name)
    if (name !== 'check') continue
    const check = async (saved: string) => {
      await page.setInputFiles('input[type=file]', coreObjects('el').get('attach')!)
      await page.getByRole('heading', { name: 'Series' }).waitFor({ timeout: 300_000 })
      await save(saved)
    }
    await check('checked')
    await page.goto(url + path)
    await page.getByLabel('Keep the object on this machine').check()
    await check('checked-locally')
  }
  await context.close()
}

await mkdir(folder, { recursive: true })
const server = await serve(values.store)
await untilIndexed(server.url)
const browser = await startBrowser()
try {
  for (const look of Object.keys(LOOKS) as (keyof typeof LOOKS)[])
    await shoot(browser, server.url, look)
} finally {
  await browser.close()
  await server.stop()
}
