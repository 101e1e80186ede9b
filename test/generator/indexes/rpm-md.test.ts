import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { gzipSync } from 'node:zlib'
import t, { type Test } from 'tap'
import { type RpmRepository, readRpmMd } from '../../../generator/indexes/rpm-md.ts'
import { serveDirectory } from '../../helpers/file-server.ts'
import { makeRpm } from '../../helpers/rpm.ts'
import {
  editRepomd,
  indexOf,
  makeRpmRepository,
  type RpmRepositoryOptions,
  replacePrimary,
  repomdOf,
  signRepomd,
} from '../../helpers/rpm-repository.ts'
import { IMPATIENT } from '../../helpers/run-directory.ts'
import { makeSigner, type Signer } from '../../helpers/signer.ts'

const RULES = [{ name: 'kernel-debuginfo', release: '{version}-{revision}.{arch}' }]

const input = t.testdir({ note: 'a kernel' })
const files = { 'usr/share/doc/note': join(input, 'note') }
const kernel = makeRpm(input, { files })
const packages = [kernel, makeRpm(input, { files, name: 'kernel-debuginfo-common-x86_64' })]
const signer = makeSigner(t)

/** Makes a repository that is removed after the test, and a function that reads it. */
function repositoryOf(t: Test, options: RpmRepositoryOptions = {}) {
  const root = t.testdir({})
  const [directory, cache] = [join(root, 'repository'), join(root, 'cache')]
  makeRpmRepository(directory, { packages, form: 'xml', ...options })
  const read = (rest: Partial<RpmRepository> = {}) => {
    const base = `file://${directory}`
    const repository = { base, keyrings: [], signed: false, ...rest }
    return readRpmMd(repository, RULES, { cache, retry: IMPATIENT })
  }
  return { directory, cache, read }
}

t.test('the primary index is read in every form and compression', async (t) => {
  for (const form of ['xml', 'sqlite'] as const) {
    for (const compression of ['gz', 'bz2', 'xz', 'zst'] as const) {
      if (form === 'sqlite' && compression === 'zst') continue // no tool makes it
      await t.test(`${form} ${compression}`, async (t) => {
        const { directory, read } = repositoryOf(t, { form, compression })
        const { packages, trust } = await read()
        t.same(packages, [
          {
            name: 'kernel-debuginfo',
            epoch: '0',
            version: '5.14.0',
            revision: '1.el9',
            arch: 'x86_64',
            url: `file://${directory}/Packages/kernel-debuginfo-5.14.0-1.el9.x86_64.rpm`,
            size: statSync(kernel).size,
            checksum: {
              algorithm: 'sha256',
              hex: createHash('sha256').update(readFileSync(kernel)).digest('hex'),
            },
          },
        ])
        t.equal(trust, 'digest')
      })
    }
  }
})

t.test('digests of every algorithm are read', async (t) => {
  for (const checksum of ['sha', 'sha256', 'sha384', 'sha512'] as const) {
    const { read } = repositoryOf(t, { checksum, form: checksum === 'sha' ? 'sqlite' : 'xml' })
    const algorithm = checksum === 'sha' ? 'sha1' : checksum
    const hex = createHash(algorithm).update(readFileSync(kernel)).digest('hex')
    t.match(await read(), { packages: [{ checksum: { algorithm, hex } }] }, checksum)
  }
})

t.test(
  'the trust of a repository depends on its signature and the keys on this machine',
  async (t) => {
    const { directory, read } = repositoryOf(t, { signer })
    const { keyring } = signer
    t.match(await read({ keyrings: [keyring] }), { trust: 'index' })
    t.match(await read({ keyrings: ['/nowhere.gpg', keyring] }), { trust: 'index' })
    const armoured = join(input, 'key.asc')
    writeFileSync(armoured, signer.armoured)
    t.match(await read({ keyrings: [armoured] }), { trust: 'index' }, 'an armoured key')
    t.match(await read(), { trust: 'digest' }, 'the source has no keys')
    t.match(
      await read({ keyrings: ['/nowhere.gpg'] }),
      { trust: 'digest' },
      'no key is on this machine',
    )

    const strict = { keyrings: [keyring], signed: true }
    t.match(await read(strict), { trust: 'index' })
    await t.rejects(read({ ...strict, keyrings: ['/nowhere.gpg'] }), { code: 'no_keyring' })
    const stranger = { keyrings: [makeSigner(t).keyring] }
    await t.rejects(read(stranger), { code: 'invalid_signature' })
    await t.rejects(read({ ...stranger, signed: true }), { code: 'invalid_signature' })

    editRepomd(directory, (text) => text.replace('<revision>', '<revision>1'))
    await t.rejects(read({ keyrings: [keyring] }), {
      code: 'invalid_signature',
      message: /does not match/,
    })
    rmSync(`${repomdOf(directory)}.asc`)
    t.match(await read({ keyrings: [keyring] }), { trust: 'digest' })
    await t.rejects(read(strict), { code: 'invalid_signature', message: /does not exist/ })

    const lapsed = makeSigner(t, { lapsed: true })
    signRepomd(directory, lapsed)
    await t.rejects(read({ keyrings: [lapsed.keyring] }), { code: 'expired_signature' })
  },
)

t.test(
  'a repository at its end of life may be signed by a key that has expired since, but not after it',
  async (t) => {
    const { directory, read } = repositoryOf(t)
    const lapsed = makeSigner(t, { lapsed: true })
    signRepomd(directory, lapsed)
    const of = ({ keyring }: Signer) => ({ keyrings: [keyring], signed: true, endOfLife: true })
    t.match(await read(of(lapsed)), { packages: [{}], trust: 'index' })
    await t.rejects(read({ ...of(lapsed), endOfLife: false }), { code: 'expired_signature' })

    const revenant = makeSigner(t, { revenant: true })
    signRepomd(directory, revenant)
    await t.rejects(read(of(revenant)), { code: 'expired_signature' }, 'signed after its expiry')

    signRepomd(directory, lapsed)
    editRepomd(directory, (text) => text.replace('<revision>', '<revision>1'))
    await t.rejects(read(of(lapsed)), { code: 'invalid_signature' }, 'changed since')
  },
)

t.test('an unchanged repository is only revalidated', async (t) => {
  const { directory, cache } = repositoryOf(t, { signer })
  const { url, answered } = await serveDirectory(t, directory)
  const read = () =>
    readRpmMd({ base: url, keyrings: [signer.keyring], signed: true }, RULES, { cache })
  const first = await read()
  const primary = indexOf(directory, 'primary.xml').slice(directory.length)
  const [repomd, signature] = ['/repodata/repomd.xml', '/repodata/repomd.xml.asc']
  t.same(answered(), [`${repomd} 200`, `${signature} 200`, `${primary} 200`])
  t.same(await read(), first)
  t.same(answered(), [`${repomd} 304`, `${signature} 304`])
})

t.test(
  'a primary index that differs from the one in repomd.xml is rejected and not cached',
  async (t) => {
    for (const form of ['xml', 'sqlite'] as const) {
      const { directory, cache, read } = repositoryOf(t, { form, signer })
      const path = indexOf(directory, `primary.${form}`)
      const bytes = readFileSync(path)
      bytes[bytes.length - 1]! ^= 1
      writeFileSync(path, bytes)
      await t.rejects(read({ keyrings: [signer.keyring] }), { code: 'index_mismatch' }, form)
      writeFileSync(path, Buffer.concat([bytes, bytes]))
      await t.rejects(read(), { code: 'too_large' })
      rmSync(path)
      await t.rejects(read(), { code: 'not_found_upstream' })
      t.notOk(existsSync(cache), 'nothing is cached')
    }
  },
)

t.test('an invalid repomd.xml is rejected', async (t) => {
  const { directory, read } = repositoryOf(t)
  const valid = readFileSync(repomdOf(directory), 'utf8')
  for (const [what, text, message] of [
    ['HTML', '<!DOCTYPE html><html><body>Not found</body></html>', /document type/],
    ['another HTML page', '<html><body><p>Sign in<br></body></html>', /html, expected repomd/],
    ['empty', '', /./],
    ['JSON', '{}', /./],
    ['cut off', valid.slice(0, -20), /./],
    ['no primary index', valid.replaceAll('"primary', '"secondary'), /no primary index/],
    [
      'an index in an unsupported compression',
      valid.replace('primary.xml.gz', 'primary.xml.zck'),
      /no primary/,
    ],
    [
      'a path outside',
      valid.replaceAll('href="repodata/', 'href="../../'),
      /outside its repository/,
    ],
    ['another host', valid.replaceAll('href="', 'href="http://other.example/'), /outside its/],
    ['a local file', valid.replaceAll('href="', 'href="file:///etc/'), /outside its repository/],
    ['no digest', valid.replaceAll('type="sha256"', 'type="md5"'), /unsupported digest/],
    [
      'a digest that is a path',
      valid.replaceAll(/>[0-9a-f]{64}</g, '>../../../etc/passwd<'),
      /unsupported digest/,
    ],
    [
      'nested entities',
      `<?xml version="1.0"?><!DOCTYPE repomd [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><repomd>&b;</repomd>`,
      /document type/,
    ],
    ['an undeclared entity', valid.replace('<revision>', '<revision>&xxe;'), /./],
    ['deeply nested elements', `<repomd>${'<a>'.repeat(100)}`, /nested more than 32/],
  ] as const) {
    writeFileSync(repomdOf(directory), text)
    await t.rejects(read(), { code: 'invalid_index', message }, what)
  }
  writeFileSync(repomdOf(directory), valid.replaceAll(/<size>\d+/g, '<size>999999999999'))
  await t.rejects(read(), { code: 'too_large' }, 'an index that is too large')
  writeFileSync(repomdOf(directory), 'x'.repeat(5_000_000))
  await t.rejects(read(), { code: 'too_large' })
})

t.test('an invalid primary.xml is rejected, even with the right digest', async (t) => {
  const { directory, read } = repositoryOf(t)
  const gzip = readFileSync(indexOf(directory, 'primary.xml'))
  const valid = execFileSync('gzip', ['--decompress', '--stdout'], { input: gzip }).toString()
  const rejects = async (
    what: string,
    bytes: Uint8Array,
    message: RegExp,
    code = 'invalid_index',
  ) => {
    replacePrimary(directory, bytes, `x-primary.xml.gz`)
    await t.rejects(read(), { code, message }, what)
  }
  const xml = async (what: string, text: string, message: RegExp, code?: string) => {
    t.not(text, valid)
    await rejects(what, gzipSync(text), message, code)
  }
  await xml('HTML', '<html><body>Hello</body></html>', /html, expected metadata/)
  await xml('cut off', valid.slice(0, -30), /./)
  await xml('a document type', valid.replace('<metadata', '<!DOCTYPE x><metadata'), /document type/)
  await xml('deeply nested elements', `<metadata>${'<a>'.repeat(100)}`, /nested more than 32/)
  const endless = ' '.repeat(3_000_000)
  await xml('a tag without end', `<metadata a="${endless}">`, /more than 1048576 characters/)
  await xml(
    'a text without end',
    valid.replace('<name>', `<name>${endless}`),
    /more than 1048576 characters/,
  )
  await rejects('not gzip', Buffer.from('no gzip'), /does not decompress/, 'invalid_package')
  const edited = (from: string | RegExp, to: string) => valid.replaceAll(from, to)
  await xml('a path outside', edited('href="Packages/', 'href="../../'), /outside its rep/)
  await xml('an absolute path', edited('href="Packages/', 'href="/etc/'), /outside its rep/)
  await xml(
    'another host',
    edited('href="P', 'xml:base="http://other.example/" href="P'),
    /packages outside/,
  )
  await xml(
    'a local file',
    edited('href="P', 'xml:base="file:///etc/" href="P'),
    /packages outside/,
  )
  await xml('no version', edited('ver="5.14.0"', 'ver=""'), /invalid package/)
  await xml('a version that is a path', edited('ver="5.14.0"', 'ver="../5"'), /invalid package/)
  await xml('no size', edited(/<size [^>]*>/g, ''), /invalid package/)
  await xml('a negative size', edited(/package="\d+"/g, 'package="-1"'), /invalid package/)
  await xml('no digest', edited(/pkgid="YES">[0-9a-f]+/g, 'pkgid="YES">zz'), /unsupported digest/)
  await xml(
    'an unknown algorithm',
    edited('checksum type="sha256"', 'checksum type="constructor"'),
    /unsupported digest/,
  )

  const within = `xml:base="file://${directory}/sub/" href="P`
  replacePrimary(directory, gzipSync(edited('href="P', within)), 'x-primary.xml.gz')
  const base = `file://${directory}/sub/Packages/`
  t.match(
    await read(),
    { packages: [{ url: new RegExp(`^${base}`) }] },
    'a base in the repository is accepted',
  )
  replacePrimary(directory, gzipSync('<metadata packages="0"/>'), 'x-primary.xml.gz')
  t.match(await read(), { packages: [] }, 'a repository without packages is accepted')
})

t.test('a primary index that decompresses to more than it announces is rejected', async (t) => {
  const { directory, read } = repositoryOf(t)
  const text = `<metadata>${'<package><name>x</name></package>'.repeat(200_000)}</metadata>`
  replacePrimary(directory, gzipSync(text), 'x-primary.xml.gz')
  t.match(await read(), { packages: [] }, 'repomd.xml does not announce a size')
  editRepomd(directory, (md) => md.replace('<size>', '<open-size>1000</open-size><size>'))
  await t.rejects(read(), { code: 'too_large', message: /more than 1000 bytes/ })
  editRepomd(directory, (md) => md.replace('>1000<', '>99999999999<'))
  await t.rejects(read(), { code: 'too_large', message: /99999999999 bytes, more than/ })
})

t.test('a hostile database is rejected', async (t) => {
  const { directory, cache, read } = repositoryOf(t, { form: 'sqlite', compression: 'gz' })
  const path = indexOf(directory, 'primary.sqlite')
  const valid = execFileSync('gzip', ['--decompress', '--stdout', path])
  const file = join(cache, '../database')
  const publish = (bytes: Uint8Array) => {
    const packed = gzipSync(bytes)
    writeFileSync(path, packed)
    const hex = createHash('sha256').update(packed).digest('hex')
    editRepomd(directory, (text) =>
      text.replace(
        /(<data type="primary_db">).*?(<location [^>]*>).*?<\/data>/s,
        `$1<checksum type="sha256">${hex}</checksum>$2</data>`,
      ),
    )
  }
  const rejects = async (what: string, bytes: Uint8Array, message = /cannot be read/) => {
    publish(bytes)
    await t.rejects(read(), { code: 'invalid_index', message }, what)
  }
  const edited = (...statements: string[]) => {
    writeFileSync(file, valid)
    const database = new DatabaseSync(file)
    for (const statement of statements) database.exec(statement)
    database.close()
    return readFileSync(file)
  }
  await rejects('HTML', Buffer.from('<html>'))
  await rejects('an empty file', Buffer.alloc(0))
  await rejects('cut off', valid.subarray(0, valid.length / 2))
  const torn = Buffer.from(valid)
  torn.fill(0xff, 4096)
  await rejects('overwritten pages', torn)
  await rejects('no table', edited('DROP TABLE packages'))
  const endless = `CREATE VIEW packages AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)
    SELECT i AS name, i AS arch, i AS epoch, i AS version, i AS release, i AS location_href,
    i AS location_base, i AS checksum_type, i AS pkgId, i AS size_package FROM n`
  await rejects('an endless view', edited('DROP TABLE packages', endless))
  await rejects(
    'a table without a column',
    edited('ALTER TABLE packages DROP COLUMN location_href'),
  )
  const swollen = `ALTER TABLE packages ADD COLUMN big BLOB AS (zeroblob(900000000)) VIRTUAL;
    ALTER TABLE packages RENAME COLUMN arch TO old; ALTER TABLE packages ADD COLUMN arch AS (hex(big))`
  await rejects('a value of gigabytes', edited(swollen), /cannot be read|too much memory/)
  const climbs = "UPDATE packages SET location_href = '../../../etc/passwd'"
  await rejects('a path outside', edited(climbs), /outside its repository/)
  await rejects(
    'a version that is not text',
    edited("UPDATE packages SET version = x'00ff'"),
    /invalid package/,
  )
  publish(valid)
  t.match(await read(), { packages: [{ name: 'kernel-debuginfo' }] })
})

t.test('an unsigned repository over HTTP without TLS has no trust', async (t) => {
  const { directory, cache } = repositoryOf(t)
  const { url } = await serveDirectory(t, directory)
  const read = (keyrings: string[]) =>
    readRpmMd({ base: url, keyrings, signed: false }, RULES, { cache })
  t.match(await read([]), { trust: 'none' })
  signRepomd(directory, signer)
  t.match(await read([signer.keyring]), { trust: 'index' })
})
