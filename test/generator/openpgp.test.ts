// Files of OpenPGP public keys, made by gpg.
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { readOpenPgpKeys } from '../../generator/openpgp.ts'
import { fingerprintsIn, keyPath, verifyDetached } from '../../generator/signature.ts'
import { makeSigner } from '../helpers/signer.ts'

const CONTENT = Buffer.from('an index')

t.test(
  'the keys in a file, binary or armoured, have the fingerprints that gpg gives',
  async (t) => {
    const [one, two] = [makeSigner(t), makeSigner(t)]
    const wanted = [one.fingerprint, two.fingerprint]
    const files = [
      Buffer.concat([readFileSync(one.keyring), readFileSync(two.keyring)]),
      Buffer.concat([one.armoured, two.armoured]),
    ]
    for (const file of files) {
      const keys = readOpenPgpKeys(file)
      t.same(
        keys.map(({ fingerprint }) => fingerprint),
        wanted,
      )
      t.same(keys[0]!.bytes, readFileSync(one.keyring))
      const age = Date.now() / 1000 - keys[0]!.signedAt
      t.ok(age >= -1 && age < 3600, `signed ${age} s ago`)
    }
    const [lapsed] = readOpenPgpKeys(makeSigner(t, { lapsed: true }).armoured)
    t.equal(new Date(lapsed!.signedAt * 1000).getUTCFullYear(), 2020)
    const [ahead] = readOpenPgpKeys(makeSigner(t, { ahead: true }).armoured)
    t.equal(ahead!.signedAt, 0, 'a signature in the future proves no age')
  },
)

t.test('an RSA key with subkeys and several names is read whole', async (t) => {
  const home = mkdtempSync(join(tmpdir(), 'keys-')) // the agent's socket needs a short path
  const gpg = (...args: string[]) =>
    execFileSync('gpg', ['--homedir', home, '--batch', '--quiet', '--passphrase', '', ...args], {
      stdio: 'pipe',
    })
  t.teardown(() => {
    execFileSync('gpgconf', ['--homedir', home, '--kill', 'gpg-agent'])
    rmSync(home, { recursive: true, force: true })
  })
  gpg('--quick-generate-key', 'rsa@example.org', 'rsa2048', 'sign', 'never')
  const [, fingerprint = ''] = /^fpr:+(\w+):/m.exec(`${gpg('--with-colons', '--list-keys')}`) ?? []
  gpg('--quick-add-key', fingerprint, 'rsa2048', 'sign')
  gpg('--quick-add-uid', fingerprint, 'other@example.org')
  const file = gpg('--export')
  t.match(readOpenPgpKeys(file), [{ fingerprint, bytes: file }])
})

t.test('a block of blanks that never ends costs no time', (t) => {
  const begin = '-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n'
  for (const rest of [' '.repeat(1 << 20), '\n'.repeat(1 << 20), begin.repeat(20_000)]) {
    const { user } = process.cpuUsage()
    t.throws(() => readOpenPgpKeys(Buffer.from(`${begin}${rest}x`)), { code: 'invalid_key' })
    t.ok(process.cpuUsage().user - user < 2e6)
  }
  t.end()
})

t.test('a file that is no public key is refused', async (t) => {
  const signer = makeSigner(t)
  const key = readFileSync(signer.keyring)
  const files = {
    empty: Buffer.of(),
    'a page of HTML': Buffer.from('<!DOCTYPE html><title>Not found</title>'),
    'a page in armour': Buffer.from(
      '-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nPGh0bWw+\n-----END PGP PUBLIC KEY BLOCK-----\n',
    ),
    'cut off': key.subarray(0, -1),
    'a packet of no known length': Buffer.concat([key, Buffer.of(0x9b, 0)]),
    'a packet in parts': Buffer.concat([key, Buffer.of(0xc2, 0xe0, 0)]),
    'a length beyond the end': Buffer.concat([key, Buffer.of(0xc2, 0xff, 0xff, 0xff, 0xff, 0xff)]),
    'a signature': signer.detach(CONTENT),
    'a secret key': signer.secret,
    'a secret key after a public one': Buffer.concat([key, signer.secret]),
  }
  for (const [name, file] of Object.entries(files))
    t.throws(() => readOpenPgpKeys(file), { code: 'invalid_key' }, name)
  for (let length = 1; length < key.length; length++) {
    const cut = Buffer.from(key.subarray(0, length))
    cut[length - 1]! ^= 0xff
    try {
      readOpenPgpKeys(cut)
    } catch (error) {
      t.match(error, { code: 'invalid_key' })
    }
  }
})

t.test('a file named by a fingerprint makes only that key trusted', async (t) => {
  const [own, other] = [makeSigner(t), makeSigner(t)]
  const path = keyPath(t.testdir({}), own.fingerprint)
  writeFileSync(path, Buffer.concat([readFileSync(other.keyring), readFileSync(own.keyring)]))
  t.same([...(await fingerprintsIn([path, '/nowhere'])).keys()], [own.fingerprint])
  const trust = { keyrings: [path] }
  await verifyDetached(own.detach(CONTENT), CONTENT, trust)
  await t.rejects(verifyDetached(other.detach(CONTENT), CONTENT, trust), {
    code: 'invalid_signature',
  })
  writeFileSync(path, readFileSync(other.keyring))
  await t.rejects(verifyDetached(other.detach(CONTENT), CONTENT, trust), { code: 'no_keyring' })
})

t.test('a key that is grafted onto a trusted one as its subkey is not trusted', async (t) => {
  const [own, other] = [makeSigner(t), makeSigner(t)]
  const graft = Buffer.from(readFileSync(other.keyring))
  t.equal(graft[0], 0x98, 'tag 6, a length of one octet')
  const [, length = 0] = graft
  graft[0] = 0xb8 // tag 14, public subkey
  const subkey = graft.subarray(0, 2 + length)
  const path = join(keyPath(t.testdir({}), own.fingerprint))
  const trust = { keyrings: [path] }
  for (const tail of [subkey, graft]) {
    writeFileSync(path, Buffer.concat([readFileSync(own.keyring), tail]))
    await verifyDetached(own.detach(CONTENT), CONTENT, trust)
    await t.rejects(verifyDetached(other.detach(CONTENT), CONTENT, trust), {
      code: 'invalid_signature',
    })
  }
})
