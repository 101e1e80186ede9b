/* /v1/btf: the BTF of a kernel, by its name or by the digest of its bytes. */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import Type from 'typebox'
import { BTF_TYPE, IMMUTABLE, SHORT, sendBlob } from './body.ts'
import type { Context } from './context.ts'
import { type BuildChoice, lookUp } from './lookup.ts'
import { kernelOf, NameParams } from './name.ts'

const ChoiceQuery = Type.Object({
  build: Type.Optional(Type.String({ pattern: '^[0-9A-Fa-f]{2,128}$' })),
  'uname-version': Type.Optional(Type.String({ minLength: 1, maxLength: 256 })),
})

const DigestParams = Type.Object({ digest: Type.String({ pattern: '^[0-9a-f]{64}$' }) })

const choiceOf = (query: Type.Static<typeof ChoiceQuery>): BuildChoice => ({
  ...(query.build !== undefined && { build: query.build }),
  ...(query['uname-version'] !== undefined && { unameVersion: query['uname-version'] }),
})

export const btfRoutes =
  ({ bodies, catalog }: Context): FastifyPluginAsyncTypebox =>
  async (app) => {
    app.get(
      '/v1/btf/:distro/:version/:arch/:release',
      { schema: { params: NameParams, querystring: ChoiceQuery, produces: [BTF_TYPE] } },
      async (request, reply) => {
        const { btf } = await lookUp(catalog, kernelOf(request.params), choiceOf(request.query))
        reply.header('content-location', `/v1/btf/sha256/${btf.sha256}`)
        return await sendBlob(bodies, request, reply, { sha256: btf.sha256, cacheControl: SHORT })
      },
    )

    // A line as sha256sum writes it, for clients that cannot read headers; its digest then leads to the bytes.
    app.get(
      '/v1/btf/:distro/:version/:arch/:release/sha256',
      { schema: { params: NameParams, querystring: ChoiceQuery } },
      async (request, reply) => {
        const { btf, kernel } = await lookUp(
          catalog,
          kernelOf(request.params),
          choiceOf(request.query),
        )
        reply.header('cache-control', SHORT).type('text/plain; charset=utf-8')
        return `${btf.sha256}  ${kernel.release}.btf\n`
      },
    )

    app.get(
      '/v1/btf/sha256/:digest',
      { schema: { params: DigestParams, produces: [BTF_TYPE] } },
      (request, reply) =>
        sendBlob(bodies, request, reply, {
          sha256: request.params.digest,
          cacheControl: IMMUTABLE,
        }),
    )
  }
