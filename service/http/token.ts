/*
 * Bearer tokens. A token is 32 random bytes, so that nobody guesses one and its plain SHA-256 is enough to keep; the
 * file has the hashes, with a name, scopes and perhaps an end. It is read again when it changes, so that a token that
 * was taken out stops working.
 */
import { randomBytes, timingSafeEqual } from 'node:crypto'
import { readFile, stat } from 'node:fs/promises'
import Type, { type Static } from 'typebox'
import { Check } from 'typebox/value'
import { sha256Of } from '../../storage/index.ts'
import { writeWhole } from '../atomic-file.ts'
import { ServiceError } from '../error.ts'

/** What a token lets its holder do; each may read. */
export const SCOPES = ['read', 'generate'] as const
export type TokenScope = (typeof SCOPES)[number]

const PREFIX = 'btfmill_'
const MAX_TOKENS = 10_000

const Token = Type.Object(
  {
    /** who holds it, for logs and limits */
    name: Type.String({ pattern: '^[\\w.@-]{1,64}$' }),
    /** of the token's text */
    sha256: Type.String({ pattern: '^[0-9a-f]{64}$' }),
    scopes: Type.Array(Type.Enum(SCOPES), { minItems: 1 }),
    /** when it stops working */
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
  /** of the file that was read last */
  #version = ''

  private constructor(path: string) {
    this.#path = path
  }

  /** The tokens of a file; without a path, none. Errors: `invalid_tokens`, and the system's. */
  static async open(path: string): Promise<Tokens> {
    const tokens = new Tokens(path)
    await tokens.reload()
    return tokens
  }

  /** Reads the file again where it changed; one that does not read changes nothing. Errors: as of `open`. */
  async reload(): Promise<void> {
    if (this.#path === '') return
    const { mtimeMs, ino, size } = await stat(this.#path)
    const version = `${mtimeMs} ${ino} ${size}`
    if (version === this.#version) return
    this.#tokens = await readTokens(this.#path)
    this.#version = version
  }

  /** The entry of a token, where it is one of ours and still holds. Takes as long whichever it is. */
  find(token: string, now = Date.now()): Token | undefined {
    const hash = Buffer.from(sha256Of(token), 'hex')
    let found: Token | undefined
    for (const entry of this.#tokens)
      if (timingSafeEqual(Buffer.from(entry.sha256, 'hex'), hash)) found = entry
    if (found?.expires !== undefined && Date.parse(found.expires) <= now) return undefined
    return found
  }
}

/** Errors: `invalid_tokens`, and the system's. */
async function readTokens(path: string): Promise<Token[]> {
  const wrong = (why: string) => new ServiceError('invalid_tokens', `${path}: ${why}`)
  let file: unknown
  try {
    file = JSON.parse(await readFile(path, 'utf8'))
  } catch (error) {
    if (error instanceof SyntaxError) throw wrong('is not JSON')
    throw error
  }
  if (!Check(TokenFile, file)) throw wrong('is not a file of tokens')
  return file.tokens
}

/**
 * Makes a token, puts its hash into the file under a name that is not there yet, and gives its text, which is kept
 * nowhere. Errors: `invalid_tokens`, and the system's.
 */
export async function addToken(path: string, entry: Omit<Token, 'sha256'>): Promise<string> {
  const there = await readIfThere(path)
  if (there.some(({ name }) => name === entry.name))
    throw new ServiceError('invalid_tokens', `${path}: there is a token ${entry.name}`)
  const token = `${PREFIX}${randomBytes(32).toString('base64url')}`
  const made = { ...entry, sha256: sha256Of(token) }
  if (!Check(Token, made)) throw new ServiceError('invalid_tokens', 'that is no name of a token')
  await writeTokens(path, [...there, made])
  return token
}

/** Takes a token out of the file. Errors: `invalid_tokens`, and the system's. */
export async function removeToken(path: string, name: string): Promise<void> {
  const there = await readTokens(path)
  const kept = there.filter((token) => token.name !== name)
  if (kept.length === there.length)
    throw new ServiceError('invalid_tokens', `${path}: there is no token ${name}`)
  await writeTokens(path, kept)
}

function readIfThere(path: string): Promise<Token[]> {
  return readTokens(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return []
    throw error
  })
}

function writeTokens(path: string, tokens: readonly Token[]): Promise<void> {
  return writeWhole(path, Buffer.from(`${JSON.stringify({ tokens }, undefined, 2)}\n`))
}
