// /v1/kernels: filters, pages, NDJSON, states.
import t from 'tap'
import { request } from 'undici'
import { btfOf, RAW, recordOf, startTestService } from '../../helpers/test-service.ts'

const failure = {
  code: 'no_vmlinux',
  message: 'there is no vmlinux in it',
  attempts: 1,
  at: '2026-11-01T12:00:00.000Z',
  retryAt: null,
} as const

const RELEASES = Array.from({ length: 25 }, (_, i) => `5.10.0-${i}-amd64`)

const testService = await startTestService(t, async (store) => {
  const btf = await btfOf(store, RAW.little)
  return [
    ...RELEASES.map((release) => recordOf({ version: '11', release }, { btf })),
    recordOf({ release: 'has', arch: 'i686' }, { btf }),
    recordOf({ release: 'failed' }, { failure }),
    recordOf({ release: 'embedded' }, { embedded: true }),
    recordOf({ release: 'both' }, { btf, failure }),
  ]
})

interface Listed {
  kernel: { release: string; arch: string }
  state: string
  links: Record<string, string>
}

const get = async (path: string, accept = 'application/json') => {
  const { statusCode, body } = await request(`${testService.url}${path}`, { headers: { accept } })
  return { status: statusCode, text: await body.text() }
}
const page = async (query: string): Promise<{ kernels: Listed[]; next?: string }> =>
  JSON.parse((await get(`/v1/kernels${query}`)).text)
const releases = ({ kernels }: { kernels: Listed[] }) => kernels.map(({ kernel }) => kernel.release)

t.test('filters accept aliases of architectures and globs of releases', async (t) => {
  t.same(releases(await page('?arch=i386')), ['has'])
  t.same(releases(await page('?version=12&release=e*')), ['embedded'])
  t.same(
    releases(await page('?distro=debian&version=11&arch=amd64&release=*-[0-3]-amd64')).sort(),
    ['5.10.0-0-amd64', '5.10.0-1-amd64', '5.10.0-2-amd64', '5.10.0-3-amd64'],
  )
  t.same(releases(await page('?distro=ubuntu')), [])
})

t.test('pages together have every record exactly once', async (t) => {
  const seen: string[] = []
  let next: string | undefined = ''
  let pages = 0
  while (next !== undefined) {
    const got = await page(`?version=11&limit=10&cursor=${next}`)
    seen.push(...releases(got))
    next = got.next
    pages++
  }
  t.equal(pages, 3)
  t.same(seen.sort(), [...RELEASES].sort())
})

t.test('NDJSON has a line for every record', async (t) => {
  const { text } = await get('/v1/kernels', 'application/x-ndjson')
  const lines = text.trimEnd().split('\n')
  t.equal(lines.length, RELEASES.length + 4)
  for (const line of lines) t.type(JSON.parse(line).kernel.release, 'string')
})

t.test('each record has its state and links', async (t) => {
  const states = { has: 'available', failed: 'failed', embedded: 'embedded', both: 'available' }
  const { kernels } = await page('?version=12')
  t.same(Object.fromEntries(kernels.map((k) => [k.kernel.release, k.state])), states)
  for (const { state, links } of kernels) {
    t.equal((await get(links.builds!)).status, 200)
    if (state === 'available') t.equal((await get(links.btf!)).status, 200)
    else t.equal(links.btf, undefined)
  }
})

t.test('the builds of one kernel are listed with their failure', async (t) => {
  const { text } = await get('/v1/kernels/debian/12/amd64/both')
  t.match(JSON.parse(text), { builds: [{ state: 'available', failure: { code: 'no_vmlinux' } }] })
  const none = await get('/v1/kernels/debian/12/amd64/none')
  t.equal(none.status, 404)
  t.equal(JSON.parse(none.text).code, 'unknown_kernel')
})
