/* A temporary OpenPGP key that signs indexes and packages, as archives do. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'

/** The time at which lapsed keys are made and sign. */
const LAPSED = '20200101T000000!'
/** The time at which keys are made and sign that are ahead of the clock. */
const AHEAD = '20900101T000000!'

export interface Signer {
  /** path of a keyring with only this key */
  keyring: string
  /** Clear-signs a text with this key and those of `others`. */
  sign(text: string, ...others: Signer[]): string
  /** Makes a detached, armoured signature. */
  detach(bytes: Uint8Array): Buffer
  /** Signs the header of a package in place, as rpmsign does. */
  signRpm(path: string): void
  /** the public key, armoured */
  armoured: Buffer
  fingerprint: string
  /** of a `revenant`, the public key as it was before it got its end */
  former?: Buffer
  /** the secret key, so that other signers can use it */
  secret: Buffer
}

/**
 * Makes a key that is removed after the test. A `lapsed` key was made, signs and expired in January 2020; a `revenant`
 * was made and expired then, and signs now; a key that is `ahead` signs in 2090.
 */
export function makeSigner(
  t: Test,
  { lapsed = false, revenant = false, ahead = false } = {},
): Signer {
  // Not in the test's directory: the path of the agent's socket has at most 107 bytes.
  const home = mkdtempSync(join(tmpdir(), 'signer-'))
  t.teardown(() => {
    execFileSync('gpgconf', ['--homedir', home, '--kill', 'gpg-agent'])
    rmSync(home, { recursive: true, force: true })
  })
  const gpg = (args: readonly string[], input: string | Buffer = '', revived = revenant) => {
    const time = lapsed || revived ? LAPSED : ahead ? AHEAD : undefined
    const clock = time ? ['--faked-system-time', time] : []
    const common = ['--homedir', home, '--batch', '--quiet', '--passphrase', '', ...clock]
    return execFileSync('gpg', [...common, ...args], { input, stdio: 'pipe' })
  }
  const keyring = join(home, 'archive.gpg')
  gpg(['--quick-generate-key', 'archive@example.org', 'ed25519', 'sign', lapsed ? '1d' : 'never'])
  const [, fingerprint = ''] =
    /^fpr:+(\w+):/m.exec(gpg(['--with-colons', '--list-secret-keys']).toString()) ?? []
  const lasting = revenant ? gpg(['--export-secret-keys']) : undefined
  const former = lasting && gpg(['--export'])
  // a minute later than the key: gpg makes no two signatures of one key at one time
  const later = ['--faked-system-time', '20200101T000100!']
  if (lasting) gpg([...later, '--quick-set-expire', fingerprint, '1d'])
  gpg(['--output', keyring, '--export'])
  if (lasting) {
    gpg(['--yes', '--delete-secret-and-public-key', fingerprint])
    gpg(['--import'], lasting) // gpg does not sign with a key that has expired
  }
  return {
    keyring,
    fingerprint,
    ...(former && { former }),
    secret: gpg(['--export-secret-keys']),
    armoured: gpg(['--armor', '--export']),
    signRpm(path) {
      const sign = lapsed ? `--faked-system-time ${LAPSED}` : ''
      const defines = {
        __gpg: '/usr/bin/gpg',
        _gpg_path: home,
        _gpg_name: fingerprint,
        _gpg_sign_cmd_extra_args: `--batch --pinentry-mode loopback --passphrase '' ${sign}`,
      }
      const args = Object.entries(defines).flatMap(([name, value]) => [
        '--define',
        `${name} ${value}`,
      ])
      execFileSync('rpmsign', [...args, '--addsign', path], { stdio: 'pipe' })
    },
    detach: (bytes) => gpg(['--armor', '--detach-sign'], Buffer.from(bytes), false),
    sign(text, ...others) {
      for (const { secret } of others) gpg(['--import'], secret)
      const keys = [fingerprint, ...others.map((other) => other.fingerprint)]
      return gpg([...keys.flatMap((key) => ['--local-user', key]), '--clearsign'], text).toString()
    },
  }
}
