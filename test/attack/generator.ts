/* Hostile indexes, packages and images, as a mirror or a man in the middle may send them. */
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { Readable } from 'node:stream'
import { gzipSync } from 'node:zlib'
import { readPackages } from '../../generator/indexes/apt.ts'
import { readPrimaryXml } from '../../generator/indexes/primary.ts'
import { readPrimarySqlite } from '../../generator/indexes/primary-sqlite.ts'
import { readRpmMd } from '../../generator/indexes/rpm-md.ts'
import { readCpio } from '../../generator/packages/cpio.ts'
import { openRpm } from '../../generator/packages/rpm.ts'
import { Random } from '../fuzz/random.ts'
import { run } from '../helpers/command.ts'
import { cpioEntry, cpioOf, debOf } from '../helpers/package.ts'
import { headerOf, rpmAround, rpmOf } from '../helpers/rpm.ts'
import { makeRpmRepository, replacePrimary, repomdOf } from '../helpers/rpm-repository.ts'
import { IMPATIENT } from '../helpers/run-directory.ts'
import { makeVmlinux } from '../helpers/vmlinux.ts'
import type { Finding, Target } from './attack.ts'
import { condition, refusal } from './refusal.ts'

const RULES = [{ name: 'kernel-debuginfo', release: '{version}-{revision}.{arch}' }]
const LAUGHS = `<!DOCTYPE metadata [<!ENTITY a0 "ha">${Array.from({ length: 40 }, (_, n) => `<!ENTITY a${n + 1} "${`&a${n};`.repeat(10)}">`).join('')}]>`
const EXTERNAL = '<!DOCTYPE metadata [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
const ENDLESS = Buffer.alloc(2 ** 20, 'a')
/** Images with damaged DWARF. */
const DAMAGED = 12

async function* endless(first: string): AsyncGenerator<Buffer> {
  yield Buffer.from(first)
  for (;;) yield ENDLESS
}

/** Attacks the generator, part by part. */
export async function attackGenerator(target: Target): Promise<Finding[]> {
  return [
    ...(await xml(target)),
    ...(await databases(target)),
    ...(await releases(target)),
    ...(await packages()),
    ...(await files(target)),
    ...(await images(target)),
  ]
}

async function xml({ directory }: Target): Promise<Finding[]> {
  const primary = (text: string) => readPrimaryXml(Readable.from([Buffer.from(text)]), () => true)
  const repository = join(directory, 'repository')
  makeRpmRepository(repository, { form: 'xml' })
  const read = () => {
    const options = { cache: join(directory, 'cache'), retry: IMPATIENT }
    return readRpmMd({ base: `file://${repository}`, keyrings: [], signed: false }, RULES, options)
  }
  const invalid = ['invalid_index', 'too_large']
  const bomb = gzipSync(Buffer.alloc(2 ** 28))
  replacePrimary(
    repository,
    Buffer.concat(Array.from({ length: 20 }, () => bomb)),
    'primary.xml.gz',
  )
  const findings = [
    await refusal('primary.xml with an entity bomb', invalid, () =>
      primary(`${LAUGHS}<metadata>&a40;</metadata>`),
    ),
    await refusal('primary.xml with an external entity', invalid, () =>
      primary(`${EXTERNAL}<metadata>&x;</metadata>`),
    ),
    await refusal('primary.xml of a million levels', invalid, () =>
      primary(`<metadata>${'<a>'.repeat(1e6)}`),
    ),
    await refusal('primary.xml with an endless name', invalid, () =>
      readPrimaryXml(endless('<metadata><'), () => true),
    ),
    await refusal('primary.xml with an endless attribute', invalid, () =>
      readPrimaryXml(endless('<metadata a="'), () => true),
    ),
    await refusal('primary.xml.gz of 5 GiB', invalid, read),
  ]
  await writeFile(
    repomdOf(repository),
    `<?xml version="1.0"?>${LAUGHS.replace('metadata', 'repomd')}<repomd>&a40;</repomd>`,
  )
  findings.push(await refusal('repomd.xml with an entity bomb', invalid, read))
  return findings
}

async function databases({ directory }: Target): Promise<Finding[]> {
  const path = join(directory, 'primary.sqlite')
  const database = async (sql: string) => {
    await rm(path, { force: true })
    const made = new DatabaseSync(path)
    made.exec(sql)
    made.close()
    return await readFile(path)
  }
  const read = (bytes: Buffer) => readPrimarySqlite(Readable.from([bytes]), RULES)
  const columns =
    'arch, epoch, version, release, location_href, location_base, checksum_type, pkgId, size_package'
  const plain = await database(
    `CREATE TABLE packages (name, ${columns});
     WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
     INSERT INTO packages (name, arch) SELECT 'kernel-debuginfo', i FROM n`,
  )
  const view = await database(
    `CREATE VIEW packages AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)
     SELECT i AS name, ${columns
       .split(', ')
       .map((name) => `i AS ${name}`)
       .join(', ')} FROM n`,
  )
  const large = await database(
    `CREATE TABLE packages (x, ${columns}, name GENERATED ALWAYS AS (hex(zeroblob(400000000))) VIRTUAL);
     INSERT INTO packages (x) VALUES (1), (2), (3)`,
  )
  const random = new Random(2)
  const damaged = Array.from({ length: 10 }, () => {
    const bytes = Buffer.from(plain)
    for (let i = 0; i < 40; i++) bytes[random.below(bytes.length)] = random.below(256)
    return bytes
  })
  const invalid = ['invalid_index', 'too_large']
  const findings = [
    await refusal('SQLite index that is an endless view', invalid, () => read(view)),
    await refusal('SQLite index with values of 800 MB', [...invalid, undefined], () => read(large)),
    await refusal('SQLite index that is cut off', [...invalid, undefined], () =>
      read(plain.subarray(0, 20_000)),
    ),
  ]
  for (const [n, bytes] of damaged.entries())
    findings.push(
      await refusal(`SQLite index with damage ${n}`, [...invalid, undefined], () => read(bytes)),
    )
  return findings
}

async function serverOf({ teardown }: Target, listener: RequestListener): Promise<string> {
  const server = createServer(listener).listen(0, '127.0.0.1')
  teardown(() => server.close().closeAllConnections())
  await new Promise((resolve) => server.once('listening', resolve))
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

async function releases(target: Target): Promise<Finding[]> {
  const base = await serverOf(target, (_, response) => {
    const send = (): void => {
      while (!response.destroyed && response.write(ENDLESS)) {}
      response.once('drain', send)
    }
    response.write('-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n')
    send()
  })
  const large = await serverOf(target, (_, response) => {
    response.end(
      `-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n${'SHA256:\n'.repeat(900_000)}-----BEGIN PGP SIGNATURE-----\n`,
    )
  })
  const [keyring] = ['/usr/share/keyrings/debian-archive-keyring.gpg']
  const read = (url: string) =>
    readPackages(
      { base: url, suite: 'x', components: ['main'], architecture: 'amd64', keyrings: [keyring] },
      () => true,
      { cache: join(target.directory, 'apt'), retry: IMPATIENT },
    )
  return [
    await refusal('InRelease without an end', ['too_large', 'invalid_index'], () => read(base)),
    await refusal(
      'InRelease of 7 MB without a signature',
      ['invalid_signature', 'invalid_index', 'no_keyring'],
      () => read(large),
    ),
  ]
}

const bytesOf = async function* (...pieces: Uint8Array[]) {
  yield* pieces
}

async function packages(): Promise<Finding[]> {
  const invalid = ['invalid_package', 'truncated', 'too_large', 'digest_mismatch']
  const rpm = async (bytes: AsyncIterable<Uint8Array>) => {
    await openRpm(bytes)
  }
  const cpio = async (bytes: AsyncIterable<Uint8Array>) => {
    for await (const { body } of readCpio(bytes))
      for await (const _ of body) {
      }
  }
  const counts = Buffer.from('8eade8010000000000ffffff7fffffff', 'hex')
  const endlessHeader = async function* () {
    yield rpmAround(counts, Buffer.alloc(0))
    for (;;) yield ENDLESS
  }
  const store = headerOf({ 1000: ['x'.repeat(1000)] })
  const offsets = Buffer.from(store)
  offsets.fill(0x7f, 16, 32)
  return [
    await refusal('rpm whose header claims 2^31 bytes', invalid, () => rpm(endlessHeader())),
    await refusal('rpm whose unread tags point outside', [...invalid, undefined], () =>
      rpm(bytesOf(rpmAround(offsets, Buffer.alloc(8)))),
    ),
    await refusal('rpm that ends in its lead', invalid, () => rpm(bytesOf(Buffer.alloc(50)))),
    await refusal('cpio with a name of 4 GiB', invalid, () =>
      cpio(
        (async function* () {
          yield cpioEntry('x', '', { nameSize: 0xffffffff })
          for (;;) yield ENDLESS
        })(),
      ),
    ),
    await refusal('cpio with a file of 4 GiB that ends', invalid, () =>
      cpio(bytesOf(cpioEntry('x', 'y', { size: 0xffffffff }))),
    ),
    await refusal('cpio of 100 000 empty files', [...invalid, undefined], () =>
      cpio(bytesOf(cpioOf(Array.from({ length: 1e5 }, () => cpioEntry('x', ''))))),
    ),
  ]
}

/** Runs `generate` on a file. It must end by itself, with a code and without a stack, and write below its store only. */
async function generates(directory: string, what: string, path: string): Promise<Finding> {
  const store = join(directory, 'generated')
  const { status, stdout, stderr } = await run(
    'generate',
    path,
    '--store',
    store,
    '--scratch',
    join(directory, 'scratch'),
  )
  const text = `${stdout}${stderr}`
  const coded =
    status === 0 ||
    (status === 1 && /\b[a-z]+_[a-z_]+\b|\btoo_large\b|\btruncated\b|\bpahole\b/.test(text))
  const quiet = !/\n\s+at .*:\d+:\d+|\binternal\b/.test(text)
  return condition(
    `generate: ${what}`,
    coded && quiet,
    `status ${status}${coded && quiet ? '' : `: ${text.slice(-300)}`}`,
  )
}

async function files({ directory }: Target): Promise<Finding[]> {
  const input = join(directory, 'input')
  await mkdir(input)
  const outside = join(directory, 'outside')
  await mkdir(outside)
  const put = async (name: string, bytes: Buffer) => {
    await writeFile(join(input, name), bytes)
    return join(input, name)
  }
  const image = '/usr/lib/debug/boot/vmlinux-6.1.0-9-test'
  const deb = await debOf([
    ['../../../../outside/planted', 'x'],
    [`${outside}/planted`, 'x'],
    [`.${image}`, { linkname: '/etc/passwd' }],
  ])
  const payload = cpioOf([
    cpioEntry(`../../../../${outside}/planted`, 'x'),
    cpioEntry(`.${image}`, '/etc/passwd', { mode: 0o120777 }),
  ])
  const tags = { 1000: 'kernel-debuginfo', 1001: '6.1.0', 1002: '1', 1022: 'x86_64', 1124: 'cpio' }
  const findings = [
    await generates(
      directory,
      'deb with links and paths that lead out',
      await put('linux-image-6.1.0-9-test-dbg_1_amd64.deb', deb),
    ),
    await generates(
      directory,
      'rpm with links and paths that lead out',
      await put('kernel-debuginfo-6.1.0-1.x86_64.rpm', rpmOf(tags, payload)),
    ),
    await generates(
      directory,
      'deb of random bytes',
      await put('linux-image-6.1.0-8-test-dbg_1_amd64.deb', Buffer.alloc(1e5, '!<arch>\n')),
    ),
  ]
  findings.push(condition('no file is written outside', (await readdir(outside)).length === 0))
  return findings
}

/** Images whose DWARF is damaged: pahole may crash, or take all that it gets. */
async function images({ directory }: Target): Promise<Finding[]> {
  const path = join(directory, 'vmlinux')
  makeVmlinux(path)
  const bytes = await readFile(path)
  const random = new Random(3)
  const findings: Finding[] = []
  for (let n = 0; n < DAMAGED; n++) {
    const damaged = Buffer.from(bytes)
    const from = Math.floor(bytes.length / 3) // DWARF comes behind code and data
    for (let i = 0; i < 2 ** (n % 6); i++)
      damaged[from + random.below(bytes.length - from)] = random.below(256)
    await writeFile(path, damaged)
    findings.push(await generates(directory, `DWARF with damage ${n}`, path))
  }
  const left = await readdir(join(directory, 'scratch')).catch(() => [])
  findings.push(
    condition('no scratch directory is left', left.length === 0, left.join(', ') || 'none'),
  )
  return findings
}
