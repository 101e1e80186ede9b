import { execFileSync } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { openRpm, type RpmOptions } from '../../../generator/packages/rpm.ts'
import { cpioEntry, cpioOf } from '../../helpers/package.ts'
import { headerOf, makeRpm, PAYLOADS, type RpmValue, rpmAround, rpmOf } from '../../helpers/rpm.ts'
import { makeSigner } from '../../helpers/signer.ts'

const PATH = 'usr/lib/debug/lib/modules/5.14.0-1.el9.x86_64/vmlinux'
const IMAGE = randomBytes(300_000)
const MODULE = randomBytes(20_001)
const UNLIMITED = 1e9

async function* chunks(bytes: Uint8Array, size = 4096): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}

interface Contents {
  files: Record<string, Buffer | null>
  signed: boolean
}

/** Reads a package and checks the digest of each file; null for a file that is not regular. */
async function read(
  bytes: Uint8Array,
  options?: RpmOptions,
  limit = UNLIMITED,
  size?: number,
): Promise<Contents> {
  const { payload, files, signed } = await openRpm(chunks(bytes, size), options)
  const found: Record<string, Buffer | null> = {}
  const whole = Buffer.concat(await Array.fromAsync(payload))
  for await (const { name, regular, body, digest } of files(chunks(whole), limit)) {
    const content = Buffer.concat(await Array.fromAsync(body))
    found[name.replace(/^\.?\//, '')] = regular ? content : null
    if (!regular || !digest) continue
    const sum = createHash(digest.algorithm).update(content).digest('hex')
    if (sum !== digest.hex) throw new Error(`${name}: wrong ${digest.algorithm}`)
  }
  return { files: found, signed }
}

/** Makes a directory with files to put into packages. */
function input(t: Test) {
  const directory = t.testdir({})
  const [image, module] = ['image', 'module'].map((name) => join(directory, name)) as [
    string,
    string,
  ]
  writeFileSync(image, IMAGE)
  writeFileSync(module, MODULE)
  const files = { [PATH]: image, 'usr/lib/debug/lib/modules/m.ko.debug': module }
  return { directory, files }
}

t.test(
  'packages by rpmbuild are read with every payload, with the same files as rpm2archive',
  async (t) => {
    const { directory, files } = input(t)
    for (const payload of Object.keys(PAYLOADS) as (keyof typeof PAYLOADS)[]) {
      const file = makeRpm(directory, { files, payload })
      const { files: found } = await read(readFileSync(file))
      execFileSync('rpm2archive', [file], { cwd: directory })
      const listed = execFileSync('bsdtar', ['-tf', `${file}.tgz`], { encoding: 'utf8' })
      const names = listed
        .trim()
        .split('\n')
        .map((name) => name.replace(/^\.\/|\/$/g, ''))
      t.same(Object.keys(found).sort(), names.sort(), payload)
      t.ok(found[PATH]?.equals(IMAGE), payload)
      t.ok(found['usr/lib/debug/lib/modules/m.ko.debug']?.equals(MODULE), payload)
    }
  },
)

t.test('of several hard links, one has the bytes, as in the archive by rpm2cpio', async (t) => {
  const { directory, files } = input(t)
  const links = { 'usr/lib/debug/a': PATH, 'usr/lib/debug/z': PATH }
  const file = makeRpm(directory, { files, links })
  const { files: found } = await read(readFileSync(file))
  const same = ['usr/lib/debug/a', PATH, 'usr/lib/debug/z'].filter((name) => found[name] !== null)
  t.equal(same.length, 1)
  t.ok(found[same[0]!]?.equals(IMAGE))
})

t.test('the size of chunks makes no difference', async (t) => {
  const { directory, files } = input(t)
  const bytes = readFileSync(makeRpm(directory, { files, payload: 'zstd' }))
  for (const size of [997, 101]) {
    const { files: found } = await read(bytes, {}, UNLIMITED, size)
    t.ok(found[PATH]?.equals(IMAGE), `${size}`)
  }
})

t.test(
  'a header signed by one of the keys is accepted, others are rejected, as by rpmkeys',
  async (t) => {
    const { directory, files } = input(t)
    const [signer, other, lapsed] = [makeSigner(t), makeSigner(t), makeSigner(t, { lapsed: true })]
    const armoured = join(directory, 'RPM-GPG-KEY-test')
    writeFileSync(
      armoured,
      Buffer.concat([Buffer.from('pub  test\n'), other.armoured, signer.armoured]),
    )
    const file = makeRpm(directory, { files, signer })
    const bytes = readFileSync(file)
    t.equal((await read(bytes, { keys: [signer.keyring] })).signed, true)
    t.equal(
      (await read(bytes, { keys: [armoured] })).signed,
      true,
      'an armoured file with several keys and a comment',
    )
    t.equal((await read(bytes)).signed, false, 'no keys are given')
    t.match(rpmkeys(directory, signer.armoured, file), /Header .* Signature, key ID \w+: OK/)

    t.match(rpmkeys(directory, other.armoured, file), /Header .* Signature, key ID \w+: NOKEY/)
    await t.rejects(read(bytes, { keys: [other.keyring] }), {
      code: 'invalid_signature',
      message: /not made by a key/,
    })
    await t.rejects(read(bytes, { keys: ['/nowhere'] }), { code: 'no_keyring' })

    const altered = retagged(bytes)
    const changed = join(directory, 'changed.rpm')
    writeFileSync(changed, altered)
    t.match(rpmkeys(directory, signer.armoured, changed), /Header .* Signature, key ID \w+: BAD/)
    await t.rejects(read(altered, { keys: [signer.keyring] }), {
      code: 'invalid_signature',
      message: /does not match/,
    })

    const unsigned = readFileSync(makeRpm(directory, { files }))
    const why = { code: 'invalid_signature', message: /not signed/ }
    await t.rejects(read(unsigned, { keys: [signer.keyring] }), why)

    const old = readFileSync(makeRpm(directory, { files, signer: lapsed }))
    t.equal(
      (await read(old, { keys: [lapsed.keyring] })).signed,
      true,
      'the key expired after it signed',
    )
  },
)

/** The output of `rpmkeys --checksig --verbose` with a database that has only this key. */
function rpmkeys(directory: string, key: Buffer, file: string): string {
  const [path, database] = [join(directory, 'key.asc'), join(directory, `db-${Math.random()}`)]
  writeFileSync(path, key)
  const run = (...args: string[]) => {
    try {
      return execFileSync('rpmkeys', ['--dbpath', database, ...args], { encoding: 'utf8' })
    } catch (error) {
      return String((error as { stdout?: string }).stdout)
    }
  }
  run('--import', path)
  return run('--checksig', '--verbose', file)
}

/** Changes the summary in a package's header, and updates the digests of the header. */
function retagged(bytes: Buffer): Buffer {
  const [altered, text] = [Buffer.from(bytes), 'a kernel\0']
  const { at, header } = headerAt(bytes)
  altered.write('A', altered.indexOf(text, at))
  const anew = altered.subarray(at, at + header.length)
  for (const algorithm of ['sha256', 'sha1']) {
    const [was, is] = [header, anew].map((raw) => createHash(algorithm).update(raw).digest('hex'))
    altered.write(is!, altered.indexOf(was!))
  }
  return altered
}

/** Finds a package's main header. */
function headerAt(bytes: Buffer): { at: number; header: Buffer } {
  const size = (at: number) => 16 + bytes.readUInt32BE(at + 8) * 16 + bytes.readUInt32BE(at + 12)
  const at = Math.ceil((96 + size(96)) / 8) * 8
  return { at, header: bytes.subarray(at, at + size(at)) }
}

t.test('a flipped bit anywhere after the lead is detected', async (t) => {
  const { directory, files } = input(t)
  const bytes = readFileSync(makeRpm(directory, { files, payload: 'xz' }))
  const { at, header } = headerAt(bytes)
  const flipped = (position: number) => {
    const altered = Buffer.from(bytes)
    altered[position]! ^= 1
    return altered
  }
  const end = at + header.length
  for (const position of [at + 40, end - 3])
    await t.rejects(read(flipped(position)), { code: 'digest_mismatch', message: /header/ })
  for (const position of [end, end + 1000, bytes.length - 1])
    await t.rejects(read(flipped(position)), { code: 'digest_mismatch', message: /payload/ })
})

t.test('a package that is cut off, or longer than its header says, is rejected', async (t) => {
  const { directory, files } = input(t)
  const bytes = readFileSync(makeRpm(directory, { files }))
  const { at, header } = headerAt(bytes)
  for (const size of [0, 50, 100, at - 5, at + 10, at + header.length - 1])
    await t.rejects(read(bytes.subarray(0, size)), { code: 'truncated' }, `${size} bytes`)
  for (const size of [at + header.length, bytes.length - 1])
    await t.rejects(read(bytes.subarray(0, size)), { code: 'truncated', message: / of / })
  await t.rejects(read(Buffer.concat([bytes, Buffer.alloc(5)])), { code: 'digest_mismatch' })
})

const LISTED = {
  1117: ['vmlinux', 'link', 'dir', 'first', 'last'],
  1118: ['/boot/', '/'],
  1116: { int32: [0, 0, 1, 1, 1] },
  1030: { int16: [0o100644, 0o120777, 0o40755, 0o100644, 0o100644] },
  1095: { int32: [1, 1, 1, 1, 1] },
  1096: { int32: [1, 2, 3, 4, 4] },
  5008: { int64: [5, 7, 4096, 3, 3] },
} as const satisfies Record<number, RpmValue>

const stripped = (index: number, content: string) => cpioEntry(index, content, { magic: '07070X' })

t.test('in the large-file form, sizes, names and links come from the header', async (t) => {
  const payload = cpioOf([
    stripped(2, ''),
    stripped(3, ''),
    stripped(4, 'odd'),
    stripped(1, 'vmlinux'),
    stripped(0, 'bytes'),
  ])
  const { files } = await read(rpmOf(LISTED, payload))
  const text = Object.entries(files).map(([name, content]) => [name, content && String(content)])
  t.same(Object.fromEntries(text), {
    dir: null,
    first: null,
    last: 'odd',
    'boot/link': null,
    'boot/vmlinux': 'bytes',
  })
  const beyond = rpmOf(LISTED, cpioOf([stripped(5, '')]))
  await t.rejects(read(beyond), { code: 'invalid_package', message: /does not list/ })
})

t.test('an old package without a digest of its payload is checked by MD5', async (t) => {
  const payload = cpioOf([cpioEntry('./boot/vmlinux', 'bytes')])
  const md5 = (bytes: string | Buffer) => createHash('md5').update(bytes).digest()
  const tags = { 1117: ['vmlinux'], 1118: ['/boot/'], 1116: { int32: [0] } }
  const digests = { ...tags, 1030: { int16: [0o100644] }, 1035: [md5('bytes').toString('hex')] }
  const old = { ...digests, 5092: [], 5093: { int32: [] } }
  const raw = headerOf(old)
  const package_ = (sum: Buffer) => rpmOf(old, payload, { 1004: sum })
  const right = md5(Buffer.concat([raw, payload]))
  t.match(await read(package_(right)), { files: { 'boot/vmlinux': Buffer.from('bytes') } })
  await t.rejects(read(package_(md5('other'))), { code: 'digest_mismatch' })
})

t.test('an invalid header is rejected', async (t) => {
  const valid = rpmOf(LISTED, cpioOf([]))
  t.same((await read(valid)).files, {})
  const edited = (edit: (bytes: Buffer) => void) => {
    const bytes = Buffer.from(valid)
    edit(bytes)
    return read(bytes)
  }
  await t.rejects(
    edited((bytes) => bytes.fill(0, 0, 4)),
    { code: 'invalid_package' },
  )
  await t.rejects(
    edited((bytes) => bytes.fill(0, 96, 100)),
    { code: 'invalid_package' },
  )
  await t.rejects(
    edited((bytes) => bytes.writeUInt32BE(0x10000, 104)),
    { code: 'too_large' },
  )
  await t.rejects(
    edited((bytes) => bytes.writeUInt32BE(2 ** 31, 108)),
    { code: 'too_large' },
  )
  const signature = (tag: number, value: RpmValue) =>
    read(rpmOf(LISTED, cpioOf([]), { [tag]: value }))
  await t.rejects(signature(273, { int32: [1] }), {
    code: 'invalid_package',
    message: /not a string/,
  })
  await t.rejects(signature(1000, 'text'), { code: 'invalid_package', message: /not a number/ })
  await t.rejects(signature(270, { int64: [2 ** 60] }), { code: 'invalid_package' })
  for (const field of [8, 12]) {
    await t.rejects(
      edited((bytes) => bytes.writeUInt32BE(2 ** 31, 112 + field)),
      { code: 'invalid_package', message: /outside the store/ },
    )
  }
  const tagged = (tags: Record<number, RpmValue>) => read(rpmOf({ ...LISTED, ...tags }, cpioOf([])))
  await t.rejects(tagged({ 1125: 'lzip' }), { code: 'unsupported_package', message: /lzip/ })
  await t.rejects(tagged({ 5093: { int32: [77] } }), { code: 'unsupported_package', message: /77/ })
  await t.rejects(tagged({ 5011: { int32: [77] } }), { code: 'unsupported_package', message: /77/ })
})

t.test(
  'with any wrong byte in its header, a package is read or rejected with a known code',
  async (t) => {
    const payload = cpioOf([stripped(0, 'bytes')])
    const codes = [
      'invalid_package',
      'unsupported_package',
      'truncated',
      'too_large',
      'digest_mismatch',
    ]
    const header = headerOf({ ...LISTED, 1035: ['', '', '', '', ''], 1125: 'gzip' })
    const outcomes = new Set<string>()
    for (let at = 0; at < header.length; at++) {
      for (const value of [0, 1, 0x7f, 0xff]) {
        const bytes = Buffer.from(header)
        bytes[at] = value
        const outcome = await read(rpmAround(bytes, payload)).then(
          () => 'read',
          (error) => {
            if (!codes.includes(error.code)) throw error
            return error.code as string
          },
        )
        outcomes.add(outcome)
      }
    }
    t.ok(
      outcomes.has('invalid_package') && outcomes.has('unsupported_package'),
      [...outcomes].join(),
    )
  },
)

t.test(
  'a file that the header does not list, or too many unpacked bytes, are rejected',
  async (t) => {
    const hidden = rpmOf(LISTED, cpioOf([cpioEntry('./boot/other', 'bytes')]))
    await t.rejects(read(hidden), { code: 'invalid_package', message: /boot\/other/ })
    const { directory } = input(t)
    const zeros = join(directory, 'zeros')
    writeFileSync(zeros, Buffer.alloc(8 * 1024 ** 2))
    const bomb = readFileSync(makeRpm(directory, { files: { 'boot/a': zeros }, payload: 'zstd' }))
    t.ok(bomb.length < 16_384, `${bomb.length} bytes`)
    await t.rejects(read(bomb, {}, 4 * 1024 ** 2), { code: 'too_large' })
  },
)
