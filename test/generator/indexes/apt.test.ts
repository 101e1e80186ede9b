import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { type AptOptions, type AptSuite, readPackages } from '../../../generator/indexes/apt.ts'
import {
  makeRepository,
  type Repository,
  type RepositoryOptions,
} from '../../helpers/apt-repository.ts'
import { makePackage } from '../../helpers/package.ts'
import { makeSigner, type Signer } from '../../helpers/signer.ts'
import { startServer } from '../../helpers/test-server.ts'

const signer = makeSigner(t)

/** A directory that goes with its test, with a cache in it. */
function directoryOf(t: Test): { directory: string; cache: string } {
  const directory = mkdtempSync(join(tmpdir(), 'apt-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  return { directory, cache: join(directory, 'cache') }
}

const input = directoryOf(t).directory
const packages = ['6.1.0-1-test', '6.1.0-2-test'].map((release) =>
  makePackage(input, undefined, { release }),
)
const NAMES = ['linux-image-6.1.0-1-test-dbg', 'linux-image-6.1.0-2-test-dbg']

function suiteOf({ url }: Repository, { keyring }: Signer, rest: Partial<AptSuite> = {}): AptSuite {
  const fields = { suite: 'bookworm', components: ['main'], architecture: 'i386' }
  return { base: url, ...fields, keyrings: [keyring], ...rest }
}

/** The names of the packages that a suite has. */
async function names(suite: AptSuite, options: AptOptions): Promise<string[]> {
  const stanzas = await readPackages(suite, () => true, options)
  return stanzas.map((stanza) => stanza.get('package') ?? '').sort()
}

/** A repository of these packages, read with its own keyring. */
async function read(t: Test, options: Partial<RepositoryOptions> = {}): Promise<string[]> {
  const { directory, cache } = directoryOf(t)
  const repository = makeRepository(directory, { packages, signer, ...options })
  return await names(suiteOf(repository, options.signer ?? signer), { cache })
}

t.test('every form that Packages comes in', async (t) => {
  for (const form of ['xz', 'zst', 'gz', 'plain'] as const) {
    t.same(await read(t, { forms: [form] }), NAMES, form)
  }
})

t.test('fields as the index has them, of the packages that are wanted', async (t) => {
  const { directory, cache } = directoryOf(t)
  const repository = makeRepository(directory, { packages, signer })
  const wanted = (name: string) => name === NAMES[1]
  const stanzas = await readPackages(suiteOf(repository, signer), wanted, { cache })
  t.equal(stanzas.length, 1)
  t.match(Object.fromEntries(stanzas[0]!), {
    package: NAMES[1],
    version: '6.1.9-1',
    architecture: 'i386',
    filename: `pool/${NAMES[1]}_6.1.9-1_i386.deb`,
    sha256: /^[0-9a-f]{64}$/,
    size: String(readFileSync(packages[1]!).length),
  })
})

t.test('an architecture that the suite does not have offers nothing', async (t) => {
  const { directory, cache } = directoryOf(t)
  const suite = suiteOf(makeRepository(directory, { packages, signer }), signer)
  t.same(await names({ ...suite, architecture: 's390x' }, { cache }), [])
})

t.test('signed by several keys, of which we know one', async (t) => {
  t.same(await read(t, { others: [makeSigner(t)] }), NAMES)
})

t.test('signatures that are not believed', async (t) => {
  const { directory, cache } = directoryOf(t)
  const repository = makeRepository(directory, { packages, signer })
  const suite = suiteOf(repository, signer)
  const path = repository.path('InRelease')
  const signed = readFileSync(path, 'utf8')
  const refuses = async (
    what: string,
    text: string,
    code = 'invalid_signature',
    suited = suite,
  ) => {
    writeFileSync(path, text)
    await t.rejects(
      readPackages(suited, () => true, { cache }),
      { code },
      what,
    )
  }
  const unsigned = signed.replace(/^.*?\n\n/s, '').replace(/-----BEGIN.*/s, '')
  t.match(unsigned, /^Origin: Test\n/)
  await refuses('unsigned', unsigned)
  await refuses('by a key that is not in the keyring', makeSigner(t).sign(unsigned))
  await refuses('another text under the signature', signed.replace('Origin: Test', 'Origin: Tesa'))
  await refuses('cut off', signed.slice(0, -60))
  await refuses('no keyring', signed, 'no_keyring', { ...suite, keyrings: ['/nowhere.gpg'] })
  await refuses('empty', '')

  const lapsed = makeSigner(t, { lapsed: true })
  const old = { ...suite, keyrings: [lapsed.keyring] }
  await refuses('by a key that has expired', lapsed.sign(unsigned), 'expired_signature', old)

  const ahead = makeSigner(t, { ahead: true })
  writeFileSync(path, ahead.sign(unsigned))
  await t.rejects(
    readPackages(suiteOf(repository, ahead), () => true, { cache }),
    { code: 'invalid_signature', message: /of a time that has not come by this machine's clock/ },
    'our clock is behind',
  )

  const evil = unsigned.replace('Origin: Test', 'Origin: Evil')
  const around = `${evil}\n${signed}\n${evil}`
  writeFileSync(path, around)
  const outcome = await readPackages(suite, () => true, { cache }).then(
    (stanzas) => stanzas.length,
    (error) => error.code,
  )
  t.ok(outcome === 2 || outcome === 'invalid_signature', 'text around the signed one is not read')
})

t.test('Valid-Until', async (t) => {
  const { directory, cache } = directoryOf(t)
  const release = { 'Valid-Until': 'Sat, 07 Nov 2026 08:12:33 UTC' }
  const suite = suiteOf(makeRepository(directory, { packages, signer, release }), signer)
  const at = (now: string) => names(suite, { cache, now: new Date(now) })
  t.same(await at('2026-11-07T08:12:32Z'), NAMES)
  await t.rejects(at('2026-11-07T08:12:34Z'), {
    code: 'expired_signature',
    message: /was valid until/,
  })
  await t.rejects(read(t, { release: { 'Valid-Until': 'soon' } }), { code: 'expired_signature' })
})

t.test('a Packages file that is not the one the release names', async (t) => {
  const { directory, cache } = directoryOf(t)
  const repository = makeRepository(directory, { packages, signer, forms: ['plain'] })
  const path = repository.path('main/binary-i386/Packages')
  const text = readFileSync(path, 'utf8')
  const suite = suiteOf(repository, signer)
  writeFileSync(path, text.replace('6.1.9-1', '6.1.9-2'))
  await t.rejects(names(suite, { cache }), { code: 'index_mismatch' })
  writeFileSync(path, `${text}\nPackage: one-more\n`)
  await t.rejects(names(suite, { cache }), { code: 'too_large' })
  rmSync(path)
  await t.rejects(names(suite, { cache }), { code: 'not_found_upstream' })
  t.notOk(existsSync(cache), 'nothing of it is kept')
})

t.test('by-hash, and the plain name where the mirror has only that', async (t) => {
  const release = { 'Acquire-By-Hash': 'yes' }
  t.same(await read(t, { release, byHash: true }), NAMES, 'by hash alone')
  t.same(await read(t, { release, byHash: false }), NAMES, 'by name alone')
  await t.rejects(
    read(t, { byHash: true }),
    { code: 'not_found_upstream' },
    'who does not say it is not asked',
  )
})

t.test('a Packages file is downloaded once, and the cache is not trusted', async (t) => {
  const { directory, cache } = directoryOf(t)
  const repository = makeRepository(directory, { packages, signer })
  const server = await startServer(t, (request, response) => {
    response.end(readFileSync(join(directory, request.url!)))
  })
  const suite = suiteOf({ ...repository, url: `${server.url}/debian` }, signer)
  const asked = async () => {
    const before = server.requests.length
    t.same(await names(suite, { cache }), NAMES)
    return server.requests
      .slice(before)
      .map(({ url }) => url?.replace('/debian/dists/bookworm', ''))
  }
  const both = ['/InRelease', '/main/binary-i386/Packages.xz']
  t.same(await asked(), both)
  t.same(await asked(), both.slice(0, 1))
  const [file] = readdirSync(cache)
  writeFileSync(join(cache, file!), 'tampered')
  t.same(await asked(), both, 'what has another digest is fetched again')
  t.same(readdirSync(cache), [file])
})

t.test('a cache that cannot be written is no reason to fail', async (t) => {
  const { directory } = directoryOf(t)
  const suite = suiteOf(makeRepository(directory, { packages, signer }), signer)
  t.same(await names(suite, { cache: '/dev/null/cache' }), NAMES)
})

t.test('signed nonsense', async (t) => {
  const edited = (edit: (text: string) => string) => read(t, { edit })
  const bad = { code: 'invalid_index' }
  await t.rejects(
    edited(() => 'Origin: Test\n'),
    bad,
    'no files',
  )
  await t.rejects(
    edited(() => 'nonsense\n'),
    bad,
    'no fields',
  )
  await t.rejects(
    edited((text) => text.replaceAll(/[0-9a-f]{64}/g, 'zz')),
    bad,
    'no digests',
  )
  const huge = (text: string) => text.replaceAll(/ (\d+) main/g, ' 999999999999 main')
  await t.rejects(edited(huge), { code: 'too_large' })
})
