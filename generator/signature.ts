/*
 * Verification of OpenPGP signatures on indexes and packages, by gpgv with the distribution's keyrings. One good
 * signature by a key in a keyring is enough: Debian signs with the keys of several releases, and a machine may have
 * only one of them. A bad signature is never ignored. apt has the same rules (methods/gpgv.cc).
 */
import { readFile, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { GeneratorError } from './error.ts'
import { dearmour, type OpenPgpKey, readOpenPgpKeys } from './openpgp.ts'
import { withScratch } from './scratch.ts'
import { runChild } from './subprocess.ts'

export interface SignatureTrust {
  /** paths of keyrings, binary or armoured; missing files are ignored */
  keyrings: readonly string[]
  /** the signed content gets no updates: a key that has expired since is accepted if it was valid when it signed */
  endOfLife?: boolean
  signal?: AbortSignal | undefined
}

/**
 * Verifies a clear-signed document (InRelease) and returns the signed text. Errors: `invalid_signature`,
 * `expired_signature`, `no_keyring` if none of the keyrings is on this machine.
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

/** Verifies one or several concatenated detached signatures of `content`. Errors: those of `verifyClearSigned`. */
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

/** Returns the paths where there is a keyring. */
export async function findKeyrings(paths: readonly string[]): Promise<string[]> {
  const found = await Promise.all(paths.map(keyringAt))
  return paths.filter((_, i) => found[i] !== undefined)
}

/** Calls `work` with gpgv's options for the keyrings, and a scratch directory. */
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

/** Paths of missing keyrings that an error names: the last, which are the system's. */
const MAX_SHOWN = 3

/** Reads the keyrings that are on this machine. Errors: `no_keyring` if none is. */
export async function readKeyrings(keyrings: readonly string[]): Promise<Buffer[]> {
  const found = (await Promise.all(keyrings.map(keyringAt))).filter((keys) => keys !== undefined)
  if (found.length > 0) return found
  const [shown, more] = [keyrings.slice(-MAX_SHOWN), keyrings.length - MAX_SHOWN]
  const paths = [...shown, ...(more > 0 ? [`${more} more`] : [])].join(', ')
  throw new GeneratorError('no_keyring', `no keyring to verify the signature: none of ${paths}`)
}

/**
 * Reads a keyring in the form that gpgv reads: binary. A file that is named by a fingerprint is trusted for that key
 * only, whatever else is in it.
 */
async function keyringAt(path: string): Promise<Buffer | undefined> {
  const bytes = await readFile(path).catch(() => undefined)
  const fingerprint = KEY_FILE.exec(basename(path))?.[1]
  if (!bytes || fingerprint === undefined) return bytes && dearmour(bytes)
  return keysIn(bytes).find((key) => key.fingerprint === fingerprint)?.bytes
}

/** The name of the file with one key, as `keyPath` makes it. */
const KEY_FILE = /^([0-9A-F]{40})[.]pgp$/

/** Returns the path of the file with one key in a directory of keys. */
export const keyPath = (directory: string, fingerprint: string): string =>
  join(directory, `${fingerprint}.pgp`)

/** Returns the fingerprints of the keys in keyrings; missing files, and those that are no keyrings, have none. */
export async function fingerprintsIn(paths: readonly string[]): Promise<Set<string>> {
  const found = await Promise.all(paths.map(keyringAt))
  return new Set(
    found.flatMap((bytes = Buffer.of()) => keysIn(bytes)).map((key) => key.fingerprint),
  )
}

function keysIn(bytes: Buffer): OpenPgpKey[] {
  try {
    return readOpenPgpKeys(bytes)
  } catch {
    return []
  }
}

async function verify(
  args: readonly string[],
  { signal, endOfLife = false }: SignatureTrust,
): Promise<Buffer> {
  const limits = { seconds: 60, ...(signal && { signal }) }
  const { stdout, stderr, ended } = await runChild('gpgv', ['--status-fd', '2', ...args], limits)
  if (ended === 'missing') throw new GeneratorError('invalid_signature', 'gpgv is not installed')
  checkStatus(stderr, endOfLife)
  return stdout
}

/** Checks gpgv's status lines (GnuPG doc/DETAILS). Errors: `invalid_signature`, `expired_signature`. */
function checkStatus(log: string, endOfLife: boolean): void {
  const keywords = new Set([...log.matchAll(/^\[GNUPG:\] (\w+)/gm)].map((match) => match[1]))
  const isExpired = keywords.has('EXPKEYSIG') || keywords.has('EXPSIG')
  const isBad = keywords.has('BADSIG')
  const isValid = keywords.has('VALIDSIG') && !isBad
  if (isValid && (keywords.has('GOODSIG') || (endOfLife && wasValidWhenMade(log)))) return
  if (!isBad && isExpired) {
    throw new GeneratorError('expired_signature', 'the signature or its key has expired', { log })
  }
  const why = isBad
    ? 'does not match the content'
    : isFromTheFuture(log)
      ? "was made in the future by this machine's clock, which may be wrong"
      : 'was not made by a key in the keyring'
  throw new GeneratorError('invalid_signature', `the signature ${why}`, { log })
}

/** Tells whether gpgv could not check a signature because it was made later than now. */
function isFromTheFuture(log: string): boolean {
  const made = [...log.matchAll(/^\[GNUPG:\] ERRSIG(?: \w+){4} (\d+) /gm)]
  return made.some(([, seconds]) => Number(seconds) * 1000 > Date.now())
}

/** Tells whether a signature was made before its key expired. */
function wasValidWhenMade(log: string): boolean {
  return log.split('[GNUPG:] NEWSIG').some((signature) => {
    const [, expired] = /^\[GNUPG:\] KEYEXPIRED (\d+)/m.exec(signature) ?? []
    const [, made] = /^\[GNUPG:\] VALIDSIG \w+ \S+ (\d+)/m.exec(signature) ?? []
    return /^\[GNUPG:\] EXPKEYSIG /m.test(signature) && Number(made) < Number(expired)
  })
}
