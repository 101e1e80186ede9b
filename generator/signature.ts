/*
 * OpenPGP signatures of indexes, by gpgv and the distribution's keyring. One good signature of a key in the keyring
 * is enough (Debian signs with the keys of several releases, of which a machine may know one), a bad one is never
 * passed over: apt's own rule (methods/gpgv.cc).
 */
import { access, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { runChild } from './child.ts'
import { GeneratorError } from './error.ts'
import { withScratch } from './scratch.ts'

/**
 * The text that a clear-signed document (InRelease) vouches for. Errors: `bad_signature`, `expired_signature`, and
 * `bad_signature` too where the keyring is missing.
 */
export async function verifyClearSigned(
  document: Uint8Array,
  keyring: string,
  signal?: AbortSignal,
): Promise<string> {
  await access(keyring).catch((cause) => {
    throw new GeneratorError('bad_signature', `there is no keyring ${keyring}`, { cause })
  })
  return await withScratch(undefined, async (directory) => {
    const file = join(directory, 'document')
    await writeFile(file, document)
    const args = ['--status-fd', '2', '--keyring', keyring, '--output', '-', file]
    const { stdout, stderr, ended } = await runChild('gpgv', args, {
      seconds: 60,
      ...(signal && { signal }),
    })
    if (ended === 'missing') throw new GeneratorError('bad_signature', 'gpgv is not installed')
    judge(stderr)
    return stdout.toString('utf8')
  })
}

/** Reads gpgv's status lines (GnuPG doc/DETAILS). */
function judge(log: string): void {
  const said = new Set([...log.matchAll(/^\[GNUPG:\] (\w+)/gm)].map((match) => match[1]))
  if (said.has('GOODSIG') && said.has('VALIDSIG') && !said.has('BADSIG')) return
  if (!said.has('BADSIG') && (said.has('EXPKEYSIG') || said.has('EXPSIG'))) {
    throw new GeneratorError('expired_signature', 'the signature, or its key, has expired', { log })
  }
  const why = said.has('BADSIG') ? 'does not fit the text' : 'is by no key of the keyring'
  throw new GeneratorError('bad_signature', `the signature ${why}`, { log })
}
