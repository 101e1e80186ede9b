/* /healthz: the process responds. /readyz: it can serve from its store and is not stopping. */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import Type from 'typebox'
import { ServiceError } from '../error.ts'
import type { Context } from '../http/context.ts'
import { UNREADY } from '../http/readiness.ts'
import { problems } from '../http/schema.ts'

const tags = ['Operations']
const Healthy = Type.Object({ status: Type.Literal('ok') })

export const healthRoutes =
  ({ readiness }: Context): FastifyPluginAsyncTypebox =>
  async (app) => {
    app.get(
      '/healthz',
      {
        schema: {
          tags,
          summary: 'Whether the process runs',
          response: { 200: Healthy, ...problems() },
        },
      },
      async () => ({ status: 'ok' as const }),
    )
    const ready = { 200: Healthy, ...problems('unavailable') }
    app.get(
      '/readyz',
      { schema: { tags, summary: 'Whether the service is ready', response: ready } },
      async () => {
        const why = await readiness.unready()
        if (why) throw new ServiceError('unavailable', UNREADY[why])
        return { status: 'ok' as const }
      },
    )
  }
