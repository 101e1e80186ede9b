/* /v1/kernels: the records of the catalog, as pages of JSON or one NDJSON stream. */
import { Readable } from 'node:stream'
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import Type from 'typebox'
import { BuildRecord } from '../../storage/index.ts'
import { ServiceError } from '../error.ts'
import type { Context } from '../http/context.ts'
import { lines, NDJSON, problems } from '../http/schema.ts'
import { FilterQuery, filterOf } from '../kernel/filter.ts'
import { findBuilds } from '../kernel/lookup.ts'
import { kernelOf, NameParams, pathOf } from '../kernel/name.ts'
import { KernelState, PublicFailure, stateOf, toPublic } from '../kernel/public-record.ts'

const PAGE = 100

const ListQuery = Type.Object({
  ...FilterQuery.properties,
  partial: Type.Optional(
    Type.Literal('only', {
      description: 'list the kernels with partial BTF, made from headers, in place of the others',
    }),
  ),
  limit: Type.Integer({ minimum: 1, maximum: 1000, default: PAGE }),
  cursor: Type.Optional(
    Type.String({ maxLength: 2048, description: '`next` of the previous page' }),
  ),
})

const Listed = Type.Object({
  ...BuildRecord.properties,
  failure: Type.Optional(PublicFailure),
  state: KernelState,
  links: Type.Object({ btf: Type.Optional(Type.String()), builds: Type.String() }),
})

const Page = Type.Object({ kernels: Type.Array(Listed), next: Type.Optional(Type.String()) })
/** The two forms of the response, chosen by the Accept header. */
const PAGES = {
  content: {
    'application/json': { schema: Page },
    ...lines('', Listed).content,
  },
}
const Builds = Type.Object({ builds: Type.Array(Listed) })

const listed = (record: BuildRecord): Type.Static<typeof Listed> => ({
  ...toPublic(record),
  state: stateOf(record),
  links: {
    ...(record.btf && {
      btf: `/v1/btf/sha256/${record.btf.sha256}${record.origin === 'headers' ? '?partial=allow' : ''}`,
    }),
    builds: `/v1/kernels/${pathOf(record.kernel)}`,
  },
})

export const kernelRoutes =
  ({ catalog, partial }: Context): FastifyPluginAsyncTypebox =>
  async (app) => {
    app.get(
      '/v1/kernels',
      {
        config: { crossOrigin: true },
        schema: {
          tags: ['Kernels'],
          summary: 'Records of kernels, in pages or all as NDJSON',
          querystring: ListQuery,
          response: { 200: PAGES, ...problems('invalid_request') },
        },
      },
      async (request, reply) => {
        const { cursor = '', limit } = request.query
        const isPartial = request.query.partial === 'only'
        const found = (isPartial ? partial.catalog : catalog).list(
          filterOf(request.query),
          Buffer.from(cursor, 'base64url').toString('utf8'),
        )
        reply.header('vary', 'accept')
        if (request.headers.accept?.includes(NDJSON)) {
          const all = found.map(({ record }) => `${JSON.stringify(listed(record))}\n`)
          return reply.type(NDJSON).send(Readable.from(all))
        }
        const page = [...found.take(limit + 1)]
        const last = page.length > limit ? page[limit - 1] : undefined
        return reply.send({
          kernels: page.slice(0, limit).map(({ record }) => listed(record)),
          ...(last && { next: Buffer.from(last.key).toString('base64url') }),
        })
      },
    )

    app.get(
      '/v1/kernels/:distro/:version/:arch/:release',
      {
        config: { crossOrigin: true },
        schema: {
          tags: ['Kernels'],
          summary: 'The builds of one kernel',
          params: NameParams,
          response: {
            200: Builds,
            ...problems('invalid_request', 'invalid_name', 'unknown_kernel', 'unavailable'),
          },
        },
      },
      async (request) => {
        const kernel = kernelOf(request.params)
        const builds = await findBuilds(catalog, kernel)
        if (builds.length === 0) {
          throw new ServiceError(
            'unknown_kernel',
            `no record of ${Object.values(kernel).join(' ')}`,
          )
        }
        return { builds: builds.map(listed) }
      },
    )
  }
