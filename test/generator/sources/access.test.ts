// Restricted repositories: client certificates and credentials, and the servers that must not get them.
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import type { IncomingMessage, RequestListener } from 'node:http'
import { createServer, type Server } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TLSSocket } from 'node:tls'
import { Queue as RedisJobs } from 'bullmq'
import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import { work } from '../../../generator/index.ts'
import { type Job, jobIdOf, jobOfFile } from '../../../generator/jobs/job.ts'
import { findPahole } from '../../../generator/jobs/pahole.ts'
import { PREFIX, queueNameOf } from '../../../generator/jobs/redis.ts'
import { downloadAll } from '../../../generator/packages/download.ts'
import type { Source } from '../../../generator/sources/source.ts'
import { readSources, SOURCES } from '../../../generator/sources/sources.ts'
import { startRedis } from '../../helpers/redis.ts'
import { makeRpm } from '../../helpers/rpm.ts'
import { makeRpmRepository } from '../../helpers/rpm-repository.ts'
import { IMPATIENT, makeRunDirectory } from '../../helpers/run-directory.ts'
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
