import { addToken, removeToken, type TokenScope } from '../http/token.ts'
import { jsonOf } from '../json.ts'

interface TokenOptions {
  tokens: string
  json?: boolean
  scope: TokenScope[]
  days?: number
  revoke?: boolean
}

const DAY = 24 * 3600 * 1000

/** `btfmill token`: prints a new token, which nothing can print again, or revokes one. Returns the exit status. */
export async function run(name: string, options: TokenOptions): Promise<number> {
  const { tokens, scope: scopes, days, revoke, json } = options
  if (revoke) {
    await removeToken(tokens, name)
    return 0
  }
  const expires =
    days === undefined ? {} : { expires: new Date(Date.now() + days * DAY).toISOString() }
  const token = await addToken(tokens, { name, scopes, ...expires })
  console.log(json ? jsonOf({ name, scopes, ...expires, token }) : token)
  return 0
}
