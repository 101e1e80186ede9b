/*
 * Who may do what: every route has a scope, `read` where it says none; a bearer token has scopes. A token that is not
 * ours is refused, even where none is needed: its holder would not learn of it otherwise.
 */
import type { FastifyInstance, FastifyRequest } from 'fastify'
import { ServiceError } from '../error.ts'
import type { Token, TokenScope, Tokens } from './token.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** whose token the request carries */
    holder: Token | undefined
  }
  interface FastifyContextConfig {
    /** what a token must reach; `token` for any that is ours */
    scope?: TokenScope | 'token'
  }
}

export interface AccessOptions {
  tokens: Tokens | undefined
  /** whether who has no token may read */
  anonymous: boolean
}

/** Checks the token of every request to the routes registered after. Errors: `unauthorized`, `forbidden`. */
export function registerAccess(app: FastifyInstance, { tokens, anonymous }: AccessOptions): void {
  app.addHook('onRequest', (request, reply, done) => {
    const { scope = 'read' } = request.routeOptions.config
    try {
      request.holder = holderOf(request, tokens)
      if (request.holder || !anonymous || scope !== 'read') admit(request.holder, scope)
      done()
    } catch (error) {
      if (error instanceof ServiceError && error.code === 'unauthorized')
        reply.header('www-authenticate', 'Bearer')
      done(error as Error)
    }
  })
}

function holderOf({ headers }: FastifyRequest, tokens: Tokens | undefined): Token | undefined {
  const [, token] = /^bearer +([\w~+/.=-]+) *$/i.exec(headers.authorization ?? '') ?? []
  if (token === undefined) return undefined
  const holder = tokens?.find(token)
  if (!holder) throw new ServiceError('unauthorized', 'that is none of the tokens known here')
  return holder
}

/** Errors: `unauthorized`, `forbidden`. */
function admit(holder: Token | undefined, scope: TokenScope | 'token'): void {
  if (!holder) throw new ServiceError('unauthorized', 'a token is wanted')
  if (!mayDo(holder, scope))
    throw new ServiceError('forbidden', `the token ${holder.name} has no scope ${scope}`)
}

/** Whether a token reaches so far; each may read. */
export function mayDo({ scopes }: Token, scope: TokenScope | 'token'): boolean {
  return scope === 'read' || scope === 'token' || scopes.includes(scope)
}
