/*
 * OpenPGP signatures of indexes and packages, by gpgv and the distribution's keyrings. One good signature of a key in a
 * keyring is enough (Debian signs with the keys of several releases, of which a machine may know one), a bad one is never
 * passed over: apt's own rule (methods/gpgv.cc).
 */
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { GeneratorError } from './error.ts'
import { withScratch } from './scratch.ts'
import { runChild } from './subprocess.ts'

export interface SignatureTrust {
  /** paths of keyrings, binary or armoured, of which those that are there count */
  keyrings: readonly string[]
  /** what is signed gets nothing new any more, so a key that has expired since was good when it signed */
  endOfLife?: boolean
  signal?: AbortSignal | undefined
}

/**
 * The text that a clear-signed document (InRelease) vouches for. Errors: `invalid_signature`, `expired_signature`,
 * `no_keyring` where none of the keyrings is on this machine.
 */
export async function verifyClearSigned(
  document: Uint8Array,
  trust: SignatureTrust,
): Promise<string> {
  return await withKeyrings(trust, async (keyrings, directory) => {
    const file = join(directory, 'document')
    await writeFile(file, document)
    const stdout = await verify([...keyrings, '--output', '-', file], trust)
    return stdout.toString('utf8')
  })
}

/**
 * Compares bytes with a detached binary signature, or several in a row. Errors: as `verifyClearSigned`.
 */
export async function verifyDetached(
  signature: Uint8Array,
  content: Uint8Array,
  trust: SignatureTrust,
): Promise<void> {
  await withKeyrings(trust, async (keyrings, directory) => {
    const files = [join(directory, 'signature'), join(directory, 'content')] as const
    await writeFile(files[0], signature)
    await writeFile(files[1], content)
    await verify([...keyrings, ...files], trust)
  })
}

/** Those of these paths at which there is a keyring. */
export async function findKeyrings(paths: readonly string[]): Promise<string[]> {
  const found = await Promise.all(paths.map(keyringAt))
  return paths.filter((_, i) => found[i] !== undefined)
}

/** Runs `work` with gpgv's options for the keyrings, and a directory that goes with it. */
async function withKeyrings<T>(
  { keyrings }: SignatureTrust,
  work: (options: string[], directory: string) => Promise<T>,
): Promise<T> {
  const found = await readKeyrings(keyrings)
  return await withScratch(undefined, async (directory) => {
    const options: string[] = []
    for (const [i, keys] of found.entries()) {
      const path = join(directory, `${i}.gpg`)
      await writeFile(path, keys)
      options.push('--keyring', path)
    }
    return await work(options, directory)
  })
}

/** The keys of those keyrings that are there. Errors: `no_keyring` where none is. */
export async function readKeyrings(keyrings: readonly string[]): Promise<Buffer[]> {
  const found = (await Promise.all(keyrings.map(keyringAt))).filter((keys) => keys !== undefined)
  if (found.length > 0) return found
  const where = keyrings.join(', ')
  throw new GeneratorError('no_keyring', `the keys to check it with are not there: ${where}`)
}

/** The keys in a file, as gpgv reads them: not armoured. */
async function keyringAt(path: string): Promise<Buffer | undefined> {
  const bytes = await readFile(path).catch(() => undefined)
  return bytes && dearmour(bytes)
}

/** Blocks of ASCII armour (RFC 9580, 6.2) as the bytes they stand for; what is not armoured as it is. */
function dearmour(bytes: Buffer): Buffer {
  const text = bytes.toString('latin1')
  const block =
    /-----BEGIN PGP PUBLIC KEY BLOCK-----\r?\n(?:[^\r\n]+\r?\n)*?\r?\n([A-Za-z0-9+/=\s]+?)(?:\r?\n=[A-Za-z0-9+/]{4})?\s*-----END/g
  const found = [...text.matchAll(block)].map((match) => Buffer.from(match[1]!, 'base64'))
  return found.length === 0 ? bytes : Buffer.concat(found)
}

async function verify(
  args: readonly string[],
  { signal, endOfLife = false }: SignatureTrust,
): Promise<Buffer> {
  const limits = { seconds: 60, ...(signal && { signal }) }
  const { stdout, stderr, ended } = await runChild('gpgv', ['--status-fd', '2', ...args], limits)
  if (ended === 'missing') throw new GeneratorError('invalid_signature', 'gpgv is not installed')
  judge(stderr, endOfLife)
  return stdout
}

/** Reads gpgv's status lines (GnuPG doc/DETAILS). */
function judge(log: string, endOfLife: boolean): void {
  const said = new Set([...log.matchAll(/^\[GNUPG:\] (\w+)/gm)].map((match) => match[1]))
  const expired = said.has('EXPKEYSIG') || said.has('EXPSIG')
  const valid = said.has('VALIDSIG') && !said.has('BADSIG')
  if (valid && (said.has('GOODSIG') || (endOfLife && wasMadeInTime(log)))) return
  if (!said.has('BADSIG') && expired) {
    throw new GeneratorError('expired_signature', 'the signature, or its key, has expired', { log })
  }
  const why = said.has('BADSIG')
    ? 'does not fit the text'
    : isOfTheFuture(log)
      ? "is of a time that has not come by this machine's clock, which may be wrong"
      : 'is by no key of the keyring'
  throw new GeneratorError('invalid_signature', `the signature ${why}`, { log })
}

/** Whether gpgv could not check a signature that was made later than it is. */
function isOfTheFuture(log: string): boolean {
  const made = [...log.matchAll(/^\[GNUPG:\] ERRSIG(?: \w+){4} (\d+) /gm)]
  return made.some(([, seconds]) => Number(seconds) * 1000 > Date.now())
}

/** Whether a key that has expired since was good when it signed. */
function wasMadeInTime(log: string): boolean {
  return log.split('[GNUPG:] NEWSIG').some((signature) => {
    const [, expired] = /^\[GNUPG:\] KEYEXPIRED (\d+)/m.exec(signature) ?? []
    const [, made] = /^\[GNUPG:\] VALIDSIG \w+ \S+ (\d+)/m.exec(signature) ?? []
    return /^\[GNUPG:\] EXPKEYSIG /m.test(signature) && Number(made) < Number(expired)
  })
}
