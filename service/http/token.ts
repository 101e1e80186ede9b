/*
 * Bearer tokens. A token is 32 random bytes: it cannot be guessed, so its plain SHA-256 is safe to store. The token file
 * has each hash with a name, scopes and an optional expiry. It is read again when it changes, so a removed token stops
 * working. While the file cannot be read, no token is valid: it may have changed to revoke one.
 */
import { randomBytes, timingSafeEqual } from 'node:crypto'
import { readFile, stat } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import Type, { type Static } from 'typebox'
import { Check } from 'typebox/value'
import { sha256Of } from '../../storage/index.ts'
import { writeWhole } from '../atomic-file.ts'
import { ServiceError } from '../error.ts'

/** The scopes of tokens; every token may read. */
export const SCOPES = ['read', 'generate'] as const
export type TokenScope = (typeof SCOPES)[number]

const PREFIX = 'btfmill_'
const MAX_TOKENS = 10_000
/** Milliseconds between two looks at the token file. */
const RELOAD = 1000

const Token = Type.Object(
  {
    /** the holder, for logs and limits */
    name: Type.String({ pattern: '^[\\w.@-]{1,64}$' }),
    /** of the token's text, in hex */
    sha256: Type.String({ pattern: '^[0-9a-f]{64}$' }),
    scopes: Type.Array(Type.Enum(SCOPES), { minItems: 1 }),
    /** the time after which it is refused */
    expires: Type.Optional(Type.String({ format: 'date-time' })),
  },
  { additionalProperties: false },
)
export type Token = Static<typeof Token>

const TokenFile = Type.Object(
  { tokens: Type.Array(Token, { maxItems: MAX_TOKENS }) },
  { additionalProperties: false },
)

export class Tokens {
  readonly #path: string
  #tokens: readonly Token[] = []
  /** identifies the file content that was read last */
  #version = ''

  private constructor(path: string) {
    this.#path = path
  }

  /** The tokens of a file; '' has none. Errors: `invalid_tokens`; the system's. */
  static async open(path: string): Promise<Tokens> {
    const tokens = new Tokens(path)
    await tokens.reload()
    return tokens
  }

  /**
   * Reads the file again if it changed. If the file is missing or invalid, no token is valid until it can be read again.
   * Errors: those of `open`.
   */
  async reload(): Promise<void> {
    if (this.#path === '') return
    try {
      const { mtimeMs, ctimeMs, ino, size } = await stat(this.#path)
      const version = `${mtimeMs} ${ctimeMs} ${ino} ${size}`
      if (version === this.#version) return
      this.#tokens = await readTokens(this.#path)
      this.#version = version
    } catch (error) {
      this.#tokens = []
      this.#version = ''
      throw error
    }
  }

  /**
   * Reloads once a second until the signal aborts. An error is reported once, until another one follows. Independent of
   * the store, since a revoked token must not work for as long as the store hangs.
   */
  async follow(signal: AbortSignal, onError: (error: unknown) => void): Promise<void> {
    let reported = ''
    while (this.#path !== '' && !signal.aborted) {
      const error = await this.reload().then(
        () => undefined,
        (error: Error) => error,
      )
      if (error && error.message !== reported) onError(error)
      reported = error?.message ?? ''
      await sleep(RELOAD, undefined, { signal, ref: false }).catch(() => {})
    }
  }

  /** The entry of a token that is known and not expired. Takes the same time for every token. */
  find(token: string, now = Date.now()): Token | undefined {
    const hash = Buffer.from(sha256Of(token), 'hex')
    let found: Token | undefined
    for (const entry of this.#tokens)
      if (timingSafeEqual(Buffer.from(entry.sha256, 'hex'), hash)) found = entry
    if (found?.expires !== undefined && Date.parse(found.expires) <= now) return undefined
    return found
  }
}

/** The entries of a token file. Errors: `invalid_tokens`; the system's. */
export async function readTokens(path: string): Promise<Token[]> {
  const invalid = (why: string) => new ServiceError('invalid_tokens', `${path}: ${why}`)
  let file: unknown
  try {
    file = JSON.parse(await readFile(path, 'utf8'))
  } catch (error) {
    if (error instanceof SyntaxError) throw invalid('not valid JSON')
    throw error
  }
  if (!Check(TokenFile, file))
    throw invalid('not a token file: expected {"tokens": [{"name", "sha256", "scopes"}]}')
  return file.tokens
}

/**
 * Creates a token, adds its hash to the file under a new name, and returns its text, which is stored nowhere. Errors:
 * `invalid_tokens`; the system's.
 */
export async function addToken(path: string, entry: Omit<Token, 'sha256'>): Promise<string> {
  const existing = await readIfPresent(path)
  if (existing.some(({ name }) => name === entry.name))
    throw new ServiceError('invalid_tokens', `${path}: a token named ${entry.name} exists already`)
  const token = `${PREFIX}${randomBytes(32).toString('base64url')}`
  const made = { ...entry, sha256: sha256Of(token) }
  if (!Check(Token, made))
    throw new ServiceError(
      'invalid_tokens',
      `invalid token name ${JSON.stringify(entry.name)}: expected 1 to 64 of A-Z a-z 0-9 _ . @ -`,
    )
  await writeTokens(path, [...existing, made])
  return token
}

/** Removes a token from the file. Errors: `invalid_tokens`; the system's. */
export async function removeToken(path: string, name: string): Promise<void> {
  const existing = await readTokens(path)
  const kept = existing.filter((token) => token.name !== name)
  if (kept.length === existing.length)
    throw new ServiceError('invalid_tokens', `${path}: no token named ${name}`)
  await writeTokens(path, kept)
}

function readIfPresent(path: string): Promise<Token[]> {
  return readTokens(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return []
    throw error
  })
}

function writeTokens(path: string, tokens: readonly Token[]): Promise<void> {
  return writeWhole(path, Buffer.from(`${JSON.stringify({ tokens }, undefined, 2)}\n`))
}
