/* /v1/misses: kernels that were asked for and are not there, most wanted first. */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import Type from 'typebox'
import { KernelName } from '../../storage/index.ts'
import type { Context } from '../http/context.ts'
import { problems } from '../http/schema.ts'
import { FilterQuery, filterOf } from '../kernel/filter.ts'
import { findKnown } from '../kernel/lookup.ts'

const Time = Type.String({ format: 'date-time' })

const Missed = Type.Object({
  kernel: KernelName,
  count: Type.Integer({ minimum: 1 }),
  first: Time,
  last: Time,
})

const Misses = Type.Object({
  misses: Type.Array(Missed),
  total: Type.Integer({ minimum: 0, description: 'how many kernels match' }),
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
          summary: 'Kernels that were asked for and are not there, most wanted first',
          querystring: Query,
          response: { 200: Misses, ...problems('invalid_request') },
        },
      },
      async (request) => {
        const listed = misses.list(filterOf(request.query))
        // what is there by now is wanted no more
        const [there, missed] = [[], []] as (typeof listed)[]
        for (const miss of listed) {
          const found = findKnown(catalog, miss.kernel).some(({ btf }) => btf)
          ;(found ? there : missed)!.push(miss)
        }
        for (const { kernel } of there!) misses.forget(kernel)
        return { misses: missed!.slice(0, request.query.limit), total: missed!.length }
      },
    )
  }
