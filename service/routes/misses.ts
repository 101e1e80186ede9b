/* /v1/misses: kernels that were requested and have no BTF, most requested first. */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import Type from 'typebox'
import { KernelName } from '../../storage/index.ts'
import type { Context } from '../http/context.ts'
import { problems } from '../http/schema.ts'
import { FilterQuery, filterOf } from '../kernel/filter.ts'

const Time = Type.String({ format: 'date-time' })

const Missed = Type.Object({
  kernel: KernelName,
  count: Type.Integer({ minimum: 1 }),
  first: Time,
  last: Time,
})

const Misses = Type.Object({
  misses: Type.Array(Missed),
  total: Type.Integer({ minimum: 0, description: 'number of kernels that match' }),
})

const Query = Type.Object({
  ...FilterQuery.properties,
  limit: Type.Integer({ minimum: 1, maximum: 1000, default: 100 }),
})

export const missRoutes =
  ({ misses, catalog }: Context): FastifyPluginAsyncTypebox =>
  async (app) => {
    app.get(
      '/v1/misses',
      {
        schema: {
          tags: ['Kernels'],
          summary: 'Kernels that were requested and have no BTF, most requested first',
          querystring: Query,
          response: { 200: Misses, ...problems('invalid_request') },
        },
      },
      async (request) => {
        const missed = misses.listMissing(catalog, filterOf(request.query))
        return { misses: missed.slice(0, request.query.limit), total: missed.length }
      },
    )
  }
