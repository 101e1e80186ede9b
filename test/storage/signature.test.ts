// Tests signatures against Debian's minisign.
import { execFileSync, spawnSync } from 'node:child_process'
import { createPrivateKey, generateKeyPairSync } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { generateKeys, publicKeyOf, signContent, verifyContent } from '../../storage/index.ts'

const content = Buffer.from('what a catalog says\n')
const keys = generateKeys()
const signature = signContent(content, keys.secretKey, 'made in a test')

/** Writes files for minisign. Returns a function from file name to path. */
function written(t: Test, files: Record<string, string | Buffer>): (name: string) => string {
  const directory = t.testdir({})
  for (const [name, bytes] of Object.entries(files)) writeFileSync(join(directory, name), bytes)
  return (name) => join(directory, name)
}

t.test('minisign -V accepts our signature, with the key file and with the bare key', async (t) => {
  const at = written(t, { file: content, 'file.minisig': signature, 'key.pub': keys.publicKey })
  const said = execFileSync('minisign', ['-V', '-m', at('file'), '-p', at('key.pub')], {
    encoding: 'utf8',
  })
  t.match(said, /Signature and comment signature verified\nTrusted comment: made in a test/)
  const bare = keys.publicKey.split('\n')[1]!
  execFileSync('minisign', ['-V', '-m', at('file'), '-P', bare])
  t.equal(verifyContent(content, signature, bare), 'made in a test')
  writeFileSync(at('file'), 'other')
  t.not(spawnSync('minisign', ['-V', '-m', at('file'), '-p', at('key.pub')]).status, 0)
})

t.test('verifyContent accepts a signature and a key of minisign', async (t) => {
  const at = written(t, { file: content })
  execFileSync('minisign', ['-G', '-W', '-p', at('key.pub'), '-s', at('key.sec')])
  execFileSync('minisign', ['-S', '-s', at('key.sec'), '-m', at('file'), '-t', 'by minisign'])
  const theirs = readFileSync(at('file.minisig'), 'utf8')
  t.equal(verifyContent(content, theirs, readFileSync(at('key.pub'), 'utf8')), 'by minisign')
})

t.test('the public key can be derived from the secret key', async (t) => {
  t.equal(publicKeyOf(keys.secretKey), keys.publicKey)
  t.equal(createPrivateKey(keys.secretKey).asymmetricKeyType, 'ed25519')
})

t.test(
  'verifyContent rejects other content, another key, and every damaged signature',
  async (t) => {
    const refuse = (bytes: Uint8Array, text: string, key = keys.publicKey) =>
      t.throws(
        () => verifyContent(bytes, text, key),
        { code: 'invalid_signature' },
        JSON.stringify(text),
      )
    refuse(Buffer.from('other'), signature)
    refuse(content, signature, generateKeys().publicKey)
    refuse(content, signature.replace('made in', 'made by'))
    const lines = signature.split('\n')
    for (let n = 1; n < 4; n++) refuse(content, lines.with(n, '').join('\n'))
    for (let n = 0; n <= 3; n++) refuse(content, lines.slice(0, n).join('\n'))
    const flipped = Buffer.from(lines[1]!, 'base64')
    for (const at of [0, 1, 5, 10, 73]) {
      const bytes = Buffer.from(flipped)
      bytes[at]! ^= 1
      refuse(content, lines.with(1, bytes.toString('base64')).join('\n'))
    }
    refuse(content, '')
  },
)

t.test('an invalid key is rejected as invalid_key', async (t) => {
  for (const key of ['', 'x', keys.secretKey, 'RWQ='])
    t.throws(() => verifyContent(content, signature, key), { code: 'invalid_key' })
  const rsa = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
  for (const key of [
    '',
    'x',
    keys.publicKey,
    rsa.export({ type: 'pkcs8', format: 'pem' }) as string,
  ])
    t.throws(() => signContent(content, key, ''), { code: 'invalid_key' })
})

t.test('signContent replaces line breaks in the comment', async (t) => {
  const signed = signContent(content, keys.secretKey, 'a\nb\r\nc')
  t.equal(verifyContent(content, signed, keys.publicKey), 'a b  c')
})
