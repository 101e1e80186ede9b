/*
 * Access control: every route has a scope (default: `read`), and a bearer token has scopes. An unknown token is refused
 * even where no token is needed, so that its holder learns that it does not work.
 */
import type { FastifyInstance, FastifyRequest } from 'fastify'
import { ServiceError } from '../error.ts'
import type { Token, TokenScope, Tokens } from './token.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** the entry of the request's token */
    holder: Token | undefined
  }
  interface FastifyContextConfig {
    /** the scope that a request needs; `token` for any known token */
    scope?: TokenScope | 'token'
  }
}

export interface AccessOptions {
  tokens: Tokens | undefined
  /** whether requests without a token may read */
  anonymous: boolean
}

/** Checks the token of requests to all routes registered later. Errors: `unauthorized`, `forbidden`. */
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
  if (!holder) throw new ServiceError('unauthorized', 'unknown or expired token')
  return holder
}

/** Errors: `unauthorized`, `forbidden`. */
function admit(holder: Token | undefined, scope: TokenScope | 'token'): void {
  if (!holder)
    throw new ServiceError(
      'unauthorized',
      'token required: send it as "Authorization: Bearer TOKEN"',
    )
  if (!mayDo(holder, scope))
    throw new ServiceError('forbidden', `the token ${holder.name} does not have the scope ${scope}`)
}

/** Tells whether a token has a scope; every token may read. */
export function mayDo({ scopes }: Token, scope: TokenScope | 'token'): boolean {
  return scope === 'read' || scope === 'token' || scopes.includes(scope)
}
