/*
 * Query parameters. A route refuses a parameter that it does not know: a misspelt `build` would be answered with the BTF of
 * another build. The check is a hook on every route, so that no schema can leave it out.
 */
import { parse } from 'node:querystring'
import type { FastifyInstance, preValidationHookHandler, RouteOptions } from 'fastify'
import { ServiceError } from '../error.ts'

/** Characters of an unknown name that the error quotes. */
const MAX_QUOTED = 64

/** The parameters whose values contain spaces: the output of `uname -v`, ID_LIKE, and the text of a search. */
const WITH_SPACES = /^(?:uname-version|like|q)=/

/**
 * Parses a query string. HTML forms write a space as `+`, but `uname -r` contains `+` and no space, and people paste it into
 * URLs. So `+` is `+`, except in `uname-version`, `like` and `q`.
 */
export function parseQuery(text: string): Record<string, unknown> {
  const plain = text.replaceAll(/[^&]+/g, (pair) =>
    WITH_SPACES.test(pair) ? pair : pair.replaceAll('+', '%2B'),
  )
  // every parameter is parsed: the refusal of unknown ones would not see a dropped one
  return parse(plain, '&', '=', { maxKeys: 0 })
}

/** Makes every route that is registered after it refuse unknown query parameters. Errors: `invalid_request`. */
export function refuseUnknownQuery(app: FastifyInstance): void {
  app.addHook('onRoute', (route) => {
    route.preValidation = [refusal(parametersOf(route)), ...[route.preValidation ?? []].flat()]
  })
}

function parametersOf({ schema }: RouteOptions): string[] {
  const { properties = {} } = (schema?.querystring ?? {}) as { properties?: object }
  return Object.keys(properties)
}

function refusal(known: readonly string[]): preValidationHookHandler {
  const takes = known.length > 0 ? known.join(', ') : 'no query parameters'
  return ({ query }, _, done) => {
    const unknown = Object.keys(query as object).find((name) => !known.includes(name))
    if (unknown === undefined) return done()
    const name = JSON.stringify(unknown.slice(0, MAX_QUOTED))
    done(
      new ServiceError(
        'invalid_request',
        `unknown query parameter ${name}; this route takes ${takes}`,
      ),
    )
  }
}
