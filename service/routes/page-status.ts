/*
 * /status: what is missing, being made and failed. Its form starts a generation. A form cannot send an Authorization
 * header, so the token is one of its fields; what a request may do is decided as for all routes.
 */
import { parse } from 'node:querystring'
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyRequest } from 'fastify'
import Type from 'typebox'
import { listSourceResults, type SourceResult, StoreError } from '../../storage/index.ts'
import { memoizeFor } from '../concurrency.ts'
import { ServiceError } from '../error.ts'
import type { Context } from '../http/context.ts'
import { callerOf, mayGenerate } from '../http/requester.ts'
import { sendErrorPage, sendPage, UNCACHED } from '../http/send-page.ts'
import { kernelOf, parseName } from '../kernel/name.ts'
import { statusPage } from '../page/status-page.ts'

/** Milliseconds for which the results of sources are reused, and the number that is read. */
const SOURCES_AGE = 60_000
const MAX_SOURCES = 500
/** Bytes of the form. */
const FORM_LIMIT = 4096

const hide = true
const FORM = 'application/x-www-form-urlencoded'
const Form = Type.Object({
  kernel: Type.String({ minLength: 1, maxLength: 1024 }),
  token: Type.Optional(Type.String({ maxLength: 256 })),
})

export const statusPageRoutes =
  (context: Context): FastifyPluginAsyncTypebox =>
  async (app) => {
    const { catalog, kernelTable, misses, onDemand, settings, store, tokens } = context
    const sources = memoizeFor(SOURCES_AGE, () => readSources(store))
    app.setErrorHandler(sendErrorPage)
    app.removeAllContentTypeParsers()
    app.addContentTypeParser(FORM, { parseAs: 'string', bodyLimit: FORM_LIMIT }, (_, body, done) =>
      done(null, { ...parse(String(body)) }),
    )

    const generationFor = (request: FastifyRequest) => {
      if (!onDemand) return 'off'
      return mayGenerate(request, settings) ? 'open' : 'token'
    }

    app.get(
      '/status',
      {
        schema: {
          hide,
          querystring: Type.Object({
            job: Type.Optional(Type.String({ pattern: '^[\\w-]{1,64}$' })),
          }),
        },
      },
      async (request, reply) => {
        const { job } = request.query
        const page = statusPage({
          table: kernelTable(),
          misses: misses.listMissing(catalog),
          generation: generationFor(request),
          jobs: onDemand?.current() ?? [],
          started: job === undefined ? undefined : onDemand?.generator.get(job),
          sources: await sources(),
        })
        return await sendPage(request, reply, page, { cacheControl: UNCACHED })
      },
    )

    if (!onDemand) return
    app.post(
      '/status',
      { bodyLimit: FORM_LIMIT, schema: { hide, body: Form } },
      (request, reply) => {
        const { kernel: text, token } = request.body
        if (token) {
          request.holder = tokens?.find(token)
          if (!request.holder) throw new ServiceError('unauthorized', 'unknown or expired token')
        }
        const may = mayGenerate(request, settings)
        const wait = onDemand.request(kernelIn(text), {
          caller: callerOf(request),
          mayGenerate: may,
        })
        if (wait) return reply.redirect(`/status?job=${encodeURIComponent(wait.id)}`, 303)
        const links = [{ href: '/status', text: 'Back to the status' }]
        if (!may)
          throw new ServiceError('forbidden', 'generation needs a token with the scope generate', {
            details: { links },
          })
        throw new ServiceError(
          'unknown_source',
          `${text} cannot be made: no source has it, or the operator excludes it`,
          { details: { links } },
        )
      },
    )
  }

/** Errors: `invalid_name`. */
function kernelIn(text: string) {
  try {
    const name = parseName(text)
    if (name) return kernelOf(name)
  } catch (error) {
    if (!(error instanceof StoreError)) throw error
  }
  throw new ServiceError('invalid_name', 'expected DISTRO/VERSION/ARCH/RELEASE')
}

/** The last result of each index of each source; none if the store does not answer. */
async function readSources(store: Context['store']): Promise<SourceResult[]> {
  const found: SourceResult[] = []
  try {
    for await (const result of listSourceResults(store)) {
      found.push(result)
      if (found.length >= MAX_SOURCES) break
    }
  } catch (error) {
    if (!(error instanceof StoreError)) throw error
  }
  return found
}
