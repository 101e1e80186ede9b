// Restricted repositories: client certificates and credentials, and the servers that must not get them.
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http'
import { createServer, type Server } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TLSSocket } from 'node:tls'
import { Queue as RedisJobs } from 'bullmq'
import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import { work } from '../../../generator/index.ts'
import { discover, indexTargetsOf } from '../../../generator/indexes/discover.ts'
import { accessTo } from '../../../generator/jobs/belonging.ts'
import { type Job, jobIdOf, jobOfFile } from '../../../generator/jobs/job.ts'
import { findPahole } from '../../../generator/jobs/pahole.ts'
import { PREFIX, queueNameOf } from '../../../generator/jobs/redis.ts'
import { downloadAll } from '../../../generator/packages/download.ts'
import { parseSource, type RpmMdSource, type Source } from '../../../generator/sources/source.ts'
import { readSources, SOURCES } from '../../../generator/sources/sources.ts'
import { startRedis } from '../../helpers/redis.ts'
import { makeRpm } from '../../helpers/rpm.ts'
import { makeRpmRepository } from '../../helpers/rpm-repository.ts'
import { IMPATIENT, makeRunDirectory } from '../../helpers/run-directory.ts'
import { makeSigner } from '../../helpers/signer.ts'
import { startServer } from '../../helpers/test-server.ts'
import { makeVmlinux } from '../../helpers/vmlinux.ts'

const directory = mkdtempSync(join(tmpdir(), 'access-'))
t.teardown(() => rmSync(directory, { recursive: true }))
const at = (name: string) => join(directory, name)

/** Makes a certificate for 127.0.0.1, signed by an authority or by itself. Returns the paths of it and its key. */
function certificate(name: string, authority?: string): { certificate: string; key: string } {
  const paths = { certificate: at(`${name}.pem`), key: at(`${name}-key.pem`) }
  const signer = authority
    ? ['-CA', at(`${authority}.pem`), '-CAkey', at(`${authority}-key.pem`)]
    : []
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes']
  const fields = ['-subj', `/CN=${name}`, '-addext', 'subjectAltName=IP:127.0.0.1']
  const out = ['-keyout', paths.key, '-out', paths.certificate]
  execFileSync('openssl', ['req', '-x509', ...key, ...fields, ...signer, ...out], { stdio: 'pipe' })
  return paths
}

const authority = certificate('authority').certificate
const server = certificate('server', 'authority')
const client = certificate('client', 'authority')
const stranger = certificate('stranger')
const credentials = at('credentials')
writeFileSync(credentials, '# by the registration\nusername=SCC_1\npassword = se=cret \n')

/** Starts a TLS server that requests a client certificate, and returns its URL. */
async function startTls(t: Test, answer: RequestListener): Promise<string> {
  const options = {
    key: readFileSync(server.key),
    cert: readFileSync(server.certificate),
    ca: readFileSync(authority),
    requestCert: true,
    rejectUnauthorized: false,
  }
  const tls: Server = createServer(options, answer)
  t.teardown(() => {
    tls.closeAllConnections()
    tls.close()
  })
  await new Promise<void>((resolve) => tls.listen(0, '127.0.0.1', resolve))
  return `https://127.0.0.1:${(tls.address() as AddressInfo).port}`
}

const read = async (url: string, access: object) =>
  String(await downloadAll(url, 1000, { access, retry: IMPATIENT }))

const isKnown = (request: IncomingMessage) => (request.socket as TLSSocket).authorized

t.test(
  'a client certificate opens a server that requires it, and a missing or other one does not',
  async (t) => {
    const url = await startTls(t, (request, response) => {
      response.writeHead(isKnown(request) ? 200 : 403).end('for subscribers')
    })
    t.equal(await read(url, { ...client, authority }), 'for subscribers')
    await t.rejects(read(url, { authority }), { code: 'unreachable', message: /403/ })
    await t.rejects(read(url, { ...stranger, authority }), { code: 'unreachable', message: /403/ })
    await t.rejects(
      read(url, client),
      { code: 'unreachable' },
      'the authority of the server is unknown',
    )
    const missing = { certificate: at('missing.pem'), key: client.key, authority }
    await t.rejects(read(url, missing), { code: 'no_access', message: /missing\.pem/ })
  },
)

t.test('credentials are sent over TLS only, and not to the target of a redirect', async (t) => {
  const seen: (string | undefined)[] = []
  const other = await startTls(t, (request, response) => {
    seen.push(request.headers.authorization)
    response.end('elsewhere')
  })
  const url = await startTls(t, (request, response) => {
    if (request.url === '/away') response.writeHead(302, { location: other }).end()
    else response.end(request.headers.authorization)
  })
  const basic = `Basic ${Buffer.from('SCC_1:se=cret').toString('base64')}`
  t.equal(await read(url, { authority, credentials }), basic)
  t.equal(await read(`${url}/away`, { authority, credentials }), 'elsewhere')
  t.same(seen, [undefined])
  const plain = await startServer(t, (request, response) => {
    response.end(String(request.headers.authorization))
  })
  t.equal(await read(plain.url, { credentials }), 'undefined')
  writeFileSync(at('empty'), 'nothing\n')
  for (const credentials of [at('empty'), at('missing')])
    await t.rejects(read(url, { authority, credentials }), { code: 'no_access' })
})

t.test('a redirect from HTTPS to HTTP is an error', async (t) => {
  const plain = await startServer(t, (_, response) => void response.end('changed on the way'))
  const url = await startTls(t, (_, response) => {
    response.writeHead(302, { location: plain.url }).end()
  })
  await t.rejects(read(url, { authority }), { code: 'unreachable', message: /from HTTPS to HTTP/ })
})

t.test(
  'a restricted source is read with its certificate, from its index to its packages',
  async (t) => {
    const runDirectory = await makeRunDirectory(t)
    const [image, release] = [join(runDirectory.directory, 'vmlinux'), '4.18.0-80.el8.x86_64']
    makeVmlinux(image, { release, machine: 'x86_64' })
    const files = { [`usr/lib/debug/lib/modules/${release}/vmlinux`]: image }
    const packages = [
      makeRpm(runDirectory.directory, { files, version: '4.18.0', release: '80.el8' }),
    ]
    makeRpmRepository(join(runDirectory.directory, 'dist/rhel8/8/x86_64/baseos/debug'), {
      packages,
    })
    const asked: string[] = []
    const url = await startTls(t, (request, response) => {
      asked.push(
        `${isKnown(request)} ${request.url!.replace(/.*[/]/, '').replace(/^[0-9a-f]{64}/, '')}`,
      )
      if (!isKnown(request)) return void response.writeHead(403).end()
      const path = join(runDirectory.directory, request.url!)
      response.writeHead(existsSync(path) ? 200 : 404).end(existsSync(path) && readFileSync(path))
    })
    const [first] = SOURCES.get('rhel')!.versions[8]!
    const access = { ...client, authority }
    const changes = { mirror: url, access, keyrings: ['/nowhere'], versions: { 8: [first] } }
    const rows = [{ id: 'rhel', ...changes }]
    writeFileSync(at('sources.json'), JSON.stringify(rows))
    const rhel = (await readSources(at('sources.json'))).get('rhel')!
    const run = (source: Source) =>
      runDirectory.run(
        { sources: [source] },
        { filter: { distro: 'rhel', version: '8', arch: 'x86_64' } },
      )

    const { access: _, ...open } = rhel
    t.match(await run({ ...open, access: { authority } }), { published: 0, sourcesFailed: 1 })
    const missing = { ...rhel, access: { authority, certificate: at('missing'), key: client.key } }
    t.match(await run(missing), { published: 0, sourcesFailed: 1 })
    t.match(await runDirectory.sourceFailures(), [
      { source: 'rhel', failure: { code: 'no_access' } },
    ])

    asked.splice(0)
    t.match(await run(rhel), { published: 1, sourcesFailed: 0 })
    t.same(asked, [
      'true repomd.xml',
      'true -primary.xml.gz',
      'true kernel-debuginfo-4.18.0-80.el8.x86_64.rpm',
    ])
    t.match(await runDirectory.records(), [
      { kernel: { distro: 'rhel', version: '8', release }, package: { authenticated: 'digest' } },
    ])
  },
)

const SERVICE_PACK = { distro: 'sles', version: '12.5', arch: 'x86_64' }

/** Starts a server like SUSE's: a repository opens to a URL whose query is its own token. */
async function startSuse(t: Test, root: string, tokens: Readonly<Record<string, string>>) {
  const asked: string[] = []
  const url = await startTls(t, (request, response) => {
    const { pathname, search } = new URL(request.url!, 'https://localhost')
    asked.push(request.url!)
    const [, token] = Object.entries(tokens).find(([path]) => pathname.startsWith(path)) ?? []
    const file = join(root, decodeURIComponent(pathname))
    const status = search !== `?${token}` ? 403 : existsSync(file) ? 200 : 404
    response.writeHead(status).end(status === 200 ? readFileSync(file) : 'forbidden')
  })
  return { url, asked }
}

t.test(
  'each repository of SLES opens to its own token, which is in no record, message or event',
  async (t) => {
    const runDirectory = await makeRunDirectory(t)
    const { directory: root } = runDirectory
    const signer = makeSigner(t)
    const places = {
      pool: '/SUSE/Products/SLE-SERVER/12-SP5/x86_64/product_debug',
      updates: '/SUSE/Updates/SLE-SERVER/12-SP5/x86_64/update_debug',
    }
    const kernels = { pool: '4.12.14-120.1', updates: '4.12.14-122.162' }
    for (const [name, place] of Object.entries(places)) {
      const [version = '', build = ''] = kernels[name as keyof typeof kernels].split('-')
      const image = join(root, 'vmlinux')
      const release = `${version}-${build}-default`
      makeVmlinux(image, { release, machine: 'x86_64' })
      const files = { [`usr/lib/debug/boot/vmlinux-${release}.debug`]: image }
      const of = { name: 'kernel-default-debuginfo', version, release: `${build}.1` }
      makeRpmRepository(join(root, place), { packages: [makeRpm(root, { ...of, files })], signer })
    }
    const tokens = {
      [`${places.pool}/`]: 's3cret-pool_1',
      [`${places.updates}/`]: 's3cret-updates-2',
    }
    const { url, asked } = await startSuse(t, root, tokens)
    const folder = at('repos.d')
    mkdirSync(folder)
    const zypp = (name: string, place: string, token: string) =>
      writeFileSync(
        join(folder, `${name}.repo`),
        `[${name}]\nname=${name}\nenabled=0\nautorefresh=1\nbaseurl=${url}${place}?${token}\nservice=SUSE\n`,
      )
    zypp('SLES12-SP5-Debuginfo-Pool', places.pool, 's3cret-pool_1')
    zypp('SLES12-SP5-Debuginfo-Updates', `${places.updates}/`, 's3cret-updates-2')
    writeFileSync(join(folder, 'notes.txt'), `${url}/SUSE/Updates?s3cret-of-another-file`)
    const known = SOURCES.get('sles')!
    t.same(known.access, { tokens: '/etc/zypp/repos.d' })
    const sles = (row: object): Source =>
      parseSource({
        ...known,
        mirror: `${url}/SUSE`,
        keyrings: [signer.keyring],
        architectures: { x86_64: 'x86_64' },
        access: { authority, tokens: folder },
        ...row,
      })
    const shown: string[] = []
    const onEvent = (event: object) => shown.push(JSON.stringify(event))
    const run = (source: Source, filter: object = SERVICE_PACK) =>
      runDirectory.run({ sources: [source] }, { filter, source: 'sles', onEvent })

    t.match(await run(sles({})), { published: 2, sourcesFailed: 0 }, 'without LTSS')
    t.ok(asked.every((path) => /[?]s3cret-/.test(path)))
    t.notOk(
      asked.some((path) => path.includes('LTSS')),
      'a repository without a token is not asked for',
    )
    t.same(
      (await runDirectory.records()).map(({ kernel, package: { url, authenticated } }) => [
        kernel.release,
        url.replace(/^.*[?]/, '?').replace(/^.*SUSE/, ''),
        authenticated,
      ]),
      [
        [
          '4.12.14-120.1-default',
          '/Products/SLE-SERVER/12-SP5/x86_64/product_debug/Packages/kernel-default-debuginfo-4.12.14-120.1.1.x86_64.rpm',
          'index',
        ],
        [
          '4.12.14-122.162-default',
          '/Updates/SLE-SERVER/12-SP5/x86_64/update_debug/Packages/kernel-default-debuginfo-4.12.14-122.162.1.x86_64.rpm',
          'index',
        ],
      ],
    )

    zypp('SLES12-SP5-Debuginfo-Pool', places.pool, 's3cret-expired')
    writeFileSync(join(folder, 'SLES12-SP5-Debuginfo-Updates.repo'), '')
    await run(sles({}))
    t.match(
      (await runDirectory.sourceFailures()).map(({ suite, failure: { code, message } }) => [
        suite,
        code,
        message,
      ]),
      [
        ['12.5 pool-x86_64', 'unreachable', /answers 403/],
        ['12.5 updates-x86_64', 'no_access', /no token for .*update_debug.* in repos.d/],
      ],
    )
    await run(sles({ access: { authority, tokens: at('nowhere') } }))
    t.match((await runDirectory.sourceFailures())[0], {
      failure: { code: 'no_access', message: /nowhere/ },
    })

    const list = Object.entries(tokens).map(([path, token]) => ({ url: `${url}${path}?${token}` }))
    writeFileSync(at('repositories.json'), JSON.stringify(list))
    const fromCentre = sles({ access: { authority, tokens: at('repositories.json') } })
    t.match(await run(fromCentre), { skipped: 2, sourcesFailed: 0 }, "the customer centre's list")

    const [first] = known.versions['12.5'] as RpmMdSource['versions'][string]
    const own = { ...first!, url: `${url}${places.pool}?s3cret-pool_1` }
    const withQuery = sles({ versions: { '12.5': [own] }, access: { authority } })
    t.match(await run(withQuery), { skipped: 1, sourcesFailed: 0 }, "a token in the row's URL")
    const job = { url: `${url}${places.pool}/Packages/a.rpm` }
    t.same(accessTo(withQuery, job.url)?.urls, [own.url], 'a worker knows it by its own sources')
    t.equal(accessTo(withQuery, 'https://other.example/a.rpm'), undefined)

    const stored = [await runDirectory.records(), await runDirectory.sourceFailures(), shown]
    t.notMatch(JSON.stringify(stored), /s3cret/)
    const cache = join(root, '../cache')
    for (const name of readdirSync(cache))
      t.notMatch(String(readFileSync(join(cache, name))), /s3cret/)
  },
)

t.test('a token goes to no other server, path or protocol', async (t) => {
  const seen: string[] = []
  const record = (request: IncomingMessage, response: ServerResponse) => {
    seen.push(request.url!)
    response.end('elsewhere')
  }
  const other = await startTls(t, record)
  const plain = await startServer(t, record)
  const url = await startTls(t, (request, response) => {
    seen.push(request.url!)
    if (request.url!.startsWith('/repo/away'))
      response.writeHead(302, { location: `${other}/here` }).end()
    else response.end('here')
  })
  const tokens = at('tokens')
  writeFileSync(tokens, `${url}/repo?t0ken\n${url}/repo/inner/?inn3r\n`)
  const access = { authority, tokens, urls: [`${url}/given?giv3n`] }
  t.equal(await read(`${url}/repo/a%2Bb.rpm`, access), 'here')
  t.equal(await read(`${url}/repo/inner/a.rpm`, access), 'here')
  t.equal(await read(`${url}/given/a.rpm`, access), 'here')
  t.equal(await read(`${url}/repo/away`, access), 'elsewhere')
  t.same(seen.splice(0), [
    '/repo/a%2Bb.rpm?t0ken',
    '/repo/inner/a.rpm?inn3r',
    '/given/a.rpm?giv3n',
    '/repo/away?t0ken',
    '/here',
  ])
  for (const elsewhere of [`${other}/repo/a.rpm`, `${url}/repository/a.rpm`, `${url}/a.rpm`])
    await t.rejects(read(elsewhere, access), { code: 'no_access' }, elsewhere)
  t.equal(await read(`${plain.url}/repo/a.rpm`, access), 'elsewhere')
  t.same(seen, ['/repo/a.rpm'])
})

t.test("a list of mirrors does not take a source's access to other servers", async (t) => {
  const seen: (string | undefined)[] = []
  const other = await startTls(t, (request, response) => {
    seen.push(request.headers.authorization)
    response.writeHead(404).end()
  })
  const url = await startTls(t, (request, response) => {
    seen.push(request.headers.authorization)
    if (request.url === '/mirror.list') response.end(`${other}/repository\n`)
    else response.writeHead(404).end()
  })
  const amzn = SOURCES.get('amzn') as RpmMdSource
  const row: Source = {
    ...amzn,
    keyrings: ['/nowhere'],
    access: { authority, credentials },
    versions: { 2: [{ name: 'core', url: `${url}/mirror.list`, list: true }] },
  }
  const [target] = indexTargetsOf(row, { arch: 'x86_64' })
  await t.rejects(discover(target!, (name) => name, {}, { cache: at('cache'), retry: IMPATIENT }))
  t.match(seen[0], /^Basic /, 'the list itself is asked with credentials')
  t.ok(seen.slice(1).every((header) => header === undefined))
})

t.test('a job in the queue takes no credentials and no trust to a foreign server', async (t) => {
  const redis = await startRedis(t)
  const { store, scratch, directory, records } = await makeRunDirectory(t)
  const image = join(directory, 'vmlinux')
  makeVmlinux(image)
  const bytes = readFileSync(image)
  const seen: (string | undefined)[] = []
  const url = await startTls(t, (request, response) => {
    seen.push(request.headers.authorization)
    response.end(bytes)
  })
  const sles: Source = { ...SOURCES.get('sles')!, access: { authority, credentials } }
  // as an attacker writes it: the source is right, the URL is not
  const job: Job = {
    ...jobOfFile(`${url}/vmlinux`, { distro: 'sles', version: '15.6' }),
    checksum: { algorithm: 'sha256', hex: createHash('sha256').update(bytes).digest('hex') },
    trust: 'index',
    source: 'sles',
  }
  const { fingerprint } = await findPahole()
  const connection = new Redis(redis.url, { maxRetriesPerRequest: null })
  const jobs = new RedisJobs(queueNameOf(fingerprint), { connection, prefix: PREFIX })
  await jobs.add('job', job, { jobId: jobIdOf(job, fingerprint) })
  const drain = new AbortController()
  const options = { store, scratch, sources: [sles], queue: redis.url, drain: drain.signal }
  const ended = Promise.withResolvers<void>()
  const working = work({
    ...options,
    retry: IMPATIENT,
    onEvent: ({ event }) => (event === 'failed' || event === 'published') && ended.resolve(),
  })
  await ended.promise
  drain.abort()
  await working
  connection.disconnect()
  t.ok(seen.every((header) => header === undefined))
  for (const { package: from } of await records()) t.equal(from.authenticated, 'none')
})
