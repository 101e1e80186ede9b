/* /healthz: the process answers. /readyz: it can answer from its store, and goes on doing so. */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import Type from 'typebox'
import { ServiceError } from '../error.ts'
import type { Context } from '../http/context.ts'
import { UNREADY } from '../http/readiness.ts'
import { problems } from '../http/schema.ts'

const SAID = { tags: ['Operations'] }
const Healthy = Type.Object({ status: Type.Literal('ok') })

export const healthRoutes =
  ({ readiness }: Context): FastifyPluginAsyncTypebox =>
  async (app) => {
    app.get(
      '/healthz',
      {
        schema: { ...SAID, summary: 'Whether it runs', response: { 200: Healthy, ...problems() } },
      },
      async () => ({ status: 'ok' as const }),
    )
    const ready = { 200: Healthy, ...problems('unavailable') }
    app.get(
      '/readyz',
      { schema: { ...SAID, summary: 'Whether it can answer', response: ready } },
      async () => {
        const why = await readiness.unready()
        if (why) throw new ServiceError('unavailable', UNREADY[why])
        return { status: 'ok' as const }
      },
    )
  }
