import { addToken, readTokens, removeToken, type TokenScope } from '../http/token.ts'
import { jsonOf } from '../json.ts'
import { columns, linesOf, print } from './output.ts'

interface TokenFileOptions {
  tokens: string
  json?: boolean
}

interface TokenOptions extends TokenFileOptions {
  scope: TokenScope[]
  days?: number
}

const DAY = 24 * 3600 * 1000
const HEADER = ['NAME', 'SCOPES', 'EXPIRES']

/** `btfmill token NAME`: prints a new token, which nothing can print again. Returns the exit status. */
export async function run(name: string, options: TokenOptions): Promise<number> {
  const { tokens, scope: scopes, days, json } = options
  const expires =
    days === undefined ? {} : { expires: new Date(Date.now() + days * DAY).toISOString() }
  const token = await addToken(tokens, { name, scopes, ...expires })
  console.log(json ? jsonOf({ name, scopes, ...expires, token }) : token)
  return 0
}

/** `btfmill token list`. Returns the exit status. */
export async function list({ tokens: path, json }: TokenFileOptions): Promise<number> {
  const listed = (await readTokens(path)).map(({ sha256: _, ...token }) => token)
  const now = new Date().toISOString()
  const rows = listed.map(({ name, scopes, expires }) => [
    name,
    scopes.join(', '),
    expires === undefined ? 'never' : `${expires}${expires <= now ? ' (expired)' : ''}`,
  ])
  const lines = json
    ? listed.map((token) => JSON.stringify(token))
    : columns([HEADER, ...rows], process.stdout.columns)
  await print(linesOf(lines))
  return 0
}

/** `btfmill token revoke NAME`. Returns the exit status. */
export async function revoke(name: string, { tokens }: TokenFileOptions): Promise<number> {
  await removeToken(tokens, name)
  return 0
}
