// Keys of sources, fetched from servers that answer with others, with pages, with old copies, or not at all.
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import t, { type Test } from 'tap'
import { type FetchedKey, fetchKeys } from '../../../generator/indexes/fetch-keys.ts'
import { keyPath, verifyDetached } from '../../../generator/signature.ts'
import { lacksKeys, withKeys } from '../../../generator/sources/keys.ts'
import type { Source } from '../../../generator/sources/source.ts'
import { SOURCES } from '../../../generator/sources/sources.ts'
import { makeSigner, type Signer } from '../../helpers/signer.ts'
import { startServer } from '../../helpers/test-server.ts'

const CONTENT = Buffer.from('an index')
const RETRY = { timeout: 2000, retries: 0, minDelay: 1, maxDelay: 1 }

/** A server with files by path, and a source whose keys are there. */
async function published(t: Test, signers: Signer[], files: Record<string, Buffer | number>) {
  const { url } = await startServer(t, (request, response) => {
    const file = files[request.url!.slice(1)] ?? 404
    if (typeof file === 'number') response.writeHead(file).end()
    else response.end(file)
  })
  const source = {
    ...SOURCES.get('alma')!,
    keyrings: ['/nowhere'],
    fingerprints: signers.map(({ fingerprint }) => fingerprint),
    keyUrls: Object.keys(files).map((name) => `${url}/${name}`),
  } as Source
  return { url, source }
}

const statesOf = (keys: readonly FetchedKey[]) => keys.map(({ state }) => state)

t.test('only keys with the fingerprints of a source are taken from a file', async (t) => {
  const [own, other] = [makeSigner(t), makeSigner(t)]
  const directory = `${t.testdir({})}/deep/keys`
  const file = Buffer.concat([other.armoured, own.armoured])
  const { url, source } = await published(t, [own], { keys: file })
  const used = withKeys(source, { paths: [directory] })
  t.equal(await lacksKeys(used, '9'), true)
  t.same(await fetchKeys([source], directory, { retry: RETRY }), {
    keys: [
      {
        fingerprint: own.fingerprint,
        sources: ['alma'],
        state: 'written',
        path: keyPath(directory, own.fingerprint),
        url: `${url}/keys`,
      },
    ],
    failures: [],
  })
  t.same(readdirSync(directory), [`${own.fingerprint}.pgp`])
  t.equal(await lacksKeys(used, '9'), false)
  const trust = { keyrings: 'keyrings' in used ? used.keyrings! : [] }
  await verifyDetached(own.detach(CONTENT), CONTENT, trust)
  await t.rejects(verifyDetached(other.detach(CONTENT), CONTENT, trust), {
    code: 'invalid_signature',
  })
  t.same(statesOf((await fetchKeys([source], directory, { retry: RETRY })).keys), ['unchanged'])
})

t.test('an answer without an expected key gives none, and the error says why', async (t) => {
  const [own, other] = [makeSigner(t), makeSigner(t)]
  const directory = `${t.testdir({})}/keys`
  const { source } = await published(t, [own], {
    wrong: other.armoured,
    page: Buffer.from('<!DOCTYPE html><p>Please log in'),
    huge: Buffer.concat([own.armoured, Buffer.alloc(2 * 1024 ** 2, '\n')]),
    gone: 404,
    broken: 503,
  })
  const { keys, failures } = await fetchKeys([source], directory, { retry: RETRY })
  t.same(statesOf(keys), ['missing'])
  t.same(failures.map(({ url, code }) => `${url.replace(/.*\//, '')} ${code}`).sort(), [
    'broken unreachable',
    'gone not_found_upstream',
    'huge too_large',
    'page invalid_key',
    'wrong untrusted_key',
  ])
  const message = failures.find(({ code }) => code === 'untrusted_key')!.message
  t.match(message, `expected the key ${own.fingerprint}, found ${other.fingerprint}`)
  t.equal(existsSync(directory), false)
})

t.test('keys are kept although other addresses and other sources fail', async (t) => {
  const [own, second, lost] = [makeSigner(t), makeSigner(t), makeSigner(t)]
  const directory = t.testdir({})
  const first = await published(t, [own, second], {
    page: Buffer.from('<html>'),
    own: own.armoured,
    second: readFileSync(second.keyring),
  })
  const other = await published(t, [lost], { gone: 404 })
  const sources = [first.source, { ...other.source, id: 'other' }]
  const { keys, failures } = await fetchKeys(sources, directory, { retry: RETRY })
  t.same(statesOf(keys), ['written', 'written', 'missing'])
  t.equal(failures.length, 2)
  t.equal(readdirSync(directory).length, 2)
})

t.test(
  'of several copies of a key the newest is kept, and an older one does not replace it',
  async (t) => {
    const own = makeSigner(t, { revenant: true })
    const old = own.former!
    const renewed = readFileSync(own.keyring)
    t.notOk(old.equals(renewed))
    const directory = t.testdir({})
    const files: Record<string, Buffer> = { old, renewed }
    const { source } = await published(t, [own], files)
    const fetch = async () => (await fetchKeys([source], directory, { retry: RETRY })).keys
    const path = keyPath(directory, own.fingerprint)
    t.same(statesOf(await fetch()), ['written'])
    t.same(readFileSync(path), renewed)
    files.renewed = old
    t.same(statesOf(await fetch()), ['outdated'])
    t.same(readFileSync(path), renewed)
  },
)

t.test('with a directory of keys only, the keyrings of a row are not used', async (t) => {
  const signer = makeSigner(t)
  const row = { ...SOURCES.get('alma')!, keyrings: [signer.keyring] } as Source
  const directory = t.testdir({})
  t.equal(await lacksKeys(withKeys(row, { paths: [directory] }), '9'), false)
  t.equal(await lacksKeys(withKeys(row, { paths: [directory], only: true }), '9'), true)
  const { fingerprints: _, ...unknown } = row as Source & { fingerprints?: string[] }
  const kept = withKeys(unknown as Source, { paths: [directory], only: true })
  t.equal(await lacksKeys(kept, '9'), false, 'a row without fingerprints keeps its own')
})

t.test('a server that sends its answer drop by drop is left after a while', async (t) => {
  const own = makeSigner(t)
  const { url } = await startServer(t, (_request, response) => {
    const timer = setInterval(() => response.write('\n'), 50)
    response.on('close', () => clearInterval(timer))
  })
  const row = { ...SOURCES.get('alma')!, fingerprints: [own.fingerprint], keyUrls: [`${url}/key`] }
  const options = { retry: RETRY, maxTime: 0.5 }
  const { keys, failures } = await fetchKeys([row as Source], t.testdir({}), options)
  t.same(statesOf(keys), ['missing'])
  t.match(failures, [{ code: 'stalled', message: /no complete answer within 0.5 s/ }])
})

t.test('a key that has expired is kept, and serves versions without updates only', async (t) => {
  const lapsed = makeSigner(t, { lapsed: true })
  const directory = t.testdir({})
  const { source } = await published(t, [lapsed], { key: lapsed.armoured })
  t.same(statesOf((await fetchKeys([source], directory, { retry: RETRY })).keys), ['written'])
  const keyrings = [keyPath(directory, lapsed.fingerprint)]
  const signature = lapsed.detach(CONTENT)
  await verifyDetached(signature, CONTENT, { keyrings, endOfLife: true })
  await t.rejects(verifyDetached(signature, CONTENT, { keyrings }), { code: 'expired_signature' })
})
