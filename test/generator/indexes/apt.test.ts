import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import {
  type AptOptions,
  type AptSuite,
  parseRelease,
  readPackages,
} from '../../../generator/indexes/apt.ts'
import {
  makeRepository,
  type Repository,
  type RepositoryOptions,
} from '../../helpers/apt-repository.ts'
import { makePackage } from '../../helpers/package.ts'
import { makeSigner, type Signer } from '../../helpers/signer.ts'
import { startServer } from '../../helpers/test-server.ts'

const signer = makeSigner(t)

/** Makes a directory that is removed after the test, and the path of a cache in it. */
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

/** Reads the names of the packages in a suite. */
async function names(suite: AptSuite, options: AptOptions): Promise<string[]> {
  const stanzas = await readPackages(suite, () => true, options)
  return stanzas.map((stanza) => stanza.get('package') ?? '').sort()
}

/** Makes a repository of the test packages and reads it with its own keyring. */
async function read(t: Test, options: Partial<RepositoryOptions> = {}): Promise<string[]> {
  const { directory, cache } = directoryOf(t)
  const repository = makeRepository(directory, { packages, signer, ...options })
  return await names(suiteOf(repository, options.signer ?? signer), { cache })
}

t.test('Packages is read in every compression', async (t) => {
  for (const form of ['xz', 'zst', 'gz', 'plain'] as const) {
    t.same(await read(t, { forms: [form] }), NAMES, form)
  }
})

t.test('readPackages returns the fields of wanted packages as the index has them', async (t) => {
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

t.test('a suite without the architecture has no packages', async (t) => {
  const { directory, cache } = directoryOf(t)
  const suite = suiteOf(makeRepository(directory, { packages, signer }), signer)
  t.same(await names({ ...suite, architecture: 's390x' }, { cache }), [])
})

t.test(
  'a release signed by several keys is accepted if one of them is in the keyring',
  async (t) => {
    t.same(await read(t, { others: [makeSigner(t)] }), NAMES)
  },
)

t.test('a release without a valid signature by a known key is rejected', async (t) => {
  const { directory, cache } = directoryOf(t)
  const repository = makeRepository(directory, { packages, signer })
  const suite = suiteOf(repository, signer)
  const path = repository.path('InRelease')
  const signed = readFileSync(path, 'utf8')
  const rejects = async (
    what: string,
    text: string,
    code = 'invalid_signature',
    target = suite,
  ) => {
    writeFileSync(path, text)
    await t.rejects(
      readPackages(target, () => true, { cache }),
      { code },
      what,
    )
  }
  const unsigned = signed.replace(/^.*?\n\n/s, '').replace(/-----BEGIN.*/s, '')
  t.match(unsigned, /^Origin: Test\n/)
  await rejects('unsigned', unsigned)
  await rejects('signed by a key that is not in the keyring', makeSigner(t).sign(unsigned))
  await rejects('changed after it was signed', signed.replace('Origin: Test', 'Origin: Tesa'))
  await rejects('cut off', signed.slice(0, -60))
  await rejects('no keyring', signed, 'no_keyring', { ...suite, keyrings: ['/nowhere.gpg'] })
  await rejects('empty', '')

  const lapsed = makeSigner(t, { lapsed: true })
  const old = { ...suite, keyrings: [lapsed.keyring] }
  await rejects('signed by a key that has expired', lapsed.sign(unsigned), 'expired_signature', old)

  const ahead = makeSigner(t, { ahead: true })
  writeFileSync(path, ahead.sign(unsigned))
  await t.rejects(
    readPackages(suiteOf(repository, ahead), () => true, { cache }),
    { code: 'invalid_signature', message: /in the future by this machine's clock/ },
    'the clock of this machine is behind',
  )

  const evil = unsigned.replace('Origin: Test', 'Origin: Evil')
  const around = `${evil}\n${signed}\n${evil}`
  writeFileSync(path, around)
  const outcome = await readPackages(suite, () => true, { cache }).then(
    (stanzas) => stanzas.length,
    (error) => error.code,
  )
  t.ok(outcome === 2 || outcome === 'invalid_signature', 'text outside the signed part is ignored')
})

t.test(
  'a suite without InRelease is read from Release and its signature, Release.gpg',
  async (t) => {
    const { directory, cache } = directoryOf(t)
    const repository = makeRepository(directory, { packages, signer })
    const suite = suiteOf(repository, signer)
    const inline = repository.path('InRelease')
    const text = readFileSync(inline, 'utf8')
      .replace(/^.*?\n\n/s, '')
      .replace(/\n-----BEGIN.*/s, '')
    t.match(text, /^Origin: Test\n/)
    rmSync(inline)
    const put = (release: string, signature?: Uint8Array) => {
      writeFileSync(repository.path('Release'), release)
      if (signature) writeFileSync(repository.path('Release.gpg'), signature)
      else rmSync(repository.path('Release.gpg'), { force: true })
    }
    const fails = (code: string, what: string, target = suite, options: AptOptions = {}) =>
      t.rejects(names(target, { cache, ...options }), { code, message: /./ }, what)
    await t.rejects(names(suite, { cache }), { code: 'not_found_upstream', message: /InRelease/ })
    put(text, signer.detach(Buffer.from(text)))
    t.same(await names(suite, { cache }), NAMES)

    put(text)
    await fails('invalid_signature', 'no signature')
    put(text.replace('Origin: Test', 'Origin: Evil'), signer.detach(Buffer.from(text)))
    await fails('invalid_signature', 'changed after it was signed')
    put(text, makeSigner(t).detach(Buffer.from(text)))
    await fails('invalid_signature', 'signed by a key that is not in the keyring')
    const lapsed = makeSigner(t, { lapsed: true })
    put(text, lapsed.detach(Buffer.from(text)))
    await fails('expired_signature', 'the key has expired', suiteOf(repository, lapsed))
    const old = `Valid-Until: Sat, 07 Nov 2026 08:12:33 UTC\n${text}`
    put(old, signer.detach(Buffer.from(old)))
    const now = new Date('2026-11-08T00:00:00Z')
    await fails('expired_signature', 'no longer valid', suite, { now })
    writeFileSync(inline, 'changed on the way')
    put(text, signer.detach(Buffer.from(text)))
    await fails('invalid_signature', 'an invalid InRelease is not replaced by Release')
  },
)

t.test('a release is rejected after its Valid-Until', async (t) => {
  const { directory, cache } = directoryOf(t)
  const release = { 'Valid-Until': 'Sat, 07 Nov 2026 08:12:33 UTC' }
  const suite = suiteOf(makeRepository(directory, { packages, signer, release }), signer)
  const at = (now: string) => names(suite, { cache, now: new Date(now) })
  t.same(await at('2026-11-07T08:12:32Z'), NAMES)
  await t.rejects(at('2026-11-07T08:12:34Z'), {
    code: 'expired_signature',
    message: /it was valid until/,
  })
  await t.rejects(read(t, { release: { 'Valid-Until': 'soon' } }), { code: 'expired_signature' })
})

t.test(
  'a Packages file that differs from the one in the release is rejected and not cached',
  async (t) => {
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
    t.notOk(existsSync(cache), 'nothing is cached')
  },
)

t.test(
  'Packages is read by hash, and by name from a mirror that has no by-hash paths',
  async (t) => {
    const release = { 'Acquire-By-Hash': 'yes' }
    t.same(await read(t, { release, byHash: true }), NAMES, 'the mirror has by-hash paths only')
    t.same(await read(t, { release, byHash: false }), NAMES, 'the mirror has names only')
    await t.rejects(
      read(t, { byHash: true }),
      { code: 'not_found_upstream' },
      'by-hash is used only if the release announces it',
    )
  },
)

t.test('a Packages file is downloaded once, and again if its cached copy is damaged', async (t) => {
  const { directory, cache } = directoryOf(t)
  const repository = makeRepository(directory, { packages, signer })
  const server = await startServer(t, (request, response) => {
    response.end(readFileSync(join(directory, request.url!)))
  })
  const suite = suiteOf({ ...repository, url: `${server.url}/debian` }, signer)
  const requests = async () => {
    const before = server.requests.length
    t.same(await names(suite, { cache }), NAMES)
    return server.requests
      .slice(before)
      .map(({ url }) => url?.replace('/debian/dists/bookworm', ''))
  }
  const both = ['/InRelease', '/main/binary-i386/Packages.xz']
  t.same(await requests(), both)
  t.same(await requests(), both.slice(0, 1))
  const [file] = readdirSync(cache)
  writeFileSync(join(cache, file!), 'tampered')
  t.same(await requests(), both, 'a file with another digest is downloaded again')
  t.same(readdirSync(cache), [file])
})

t.test('a cache that cannot be written is not an error', async (t) => {
  const { directory } = directoryOf(t)
  const suite = suiteOf(makeRepository(directory, { packages, signer }), signer)
  t.same(await names(suite, { cache: '/dev/null/cache' }), NAMES)
})

t.test('a signed but invalid release is rejected', async (t) => {
  const edited = (edit: (text: string) => string) => read(t, { edit })
  const invalid = { code: 'invalid_index' }
  await t.rejects(
    edited(() => 'Origin: Test\n'),
    invalid,
    'no files',
  )
  await t.rejects(
    edited(() => 'nonsense\n'),
    invalid,
    'no fields',
  )
  await t.rejects(
    edited((text) => text.replaceAll(/[0-9a-f]{64}/g, 'zz')),
    invalid,
    'no digests',
  )
  const huge = (text: string) => text.replaceAll(/ (\d+) main/g, ' 999999999999 main')
  await t.rejects(edited(huge), { code: 'too_large' })
})

t.test('a line of blanks that never ends costs no time', (t) => {
  const { user } = process.cpuUsage()
  const text = `Origin:${' '.repeat(300_000)}x${'\t'.repeat(300_000)}y\nSHA256:\n`
  t.throws(() => parseRelease(text, 'http://127.0.0.1'), { code: 'invalid_index' })
  t.ok(process.cpuUsage().user - user < 2e6)
  t.end()
})
