/* /healthz: the process answers. /readyz: it can answer from its store. */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import Type from 'typebox'
import type { Context } from './context.ts'

const Healthy = Type.Object({ status: Type.Literal('ok') })

export const healthRoutes =
  ({ store }: Context): FastifyPluginAsyncTypebox =>
  async (app) => {
    app.get('/healthz', { schema: { response: { 200: Healthy } } }, async () => ({
      status: 'ok' as const,
    }))
    app.get('/readyz', { schema: { response: { 200: Healthy } } }, async () => {
      for await (const _ of store.list('kernels/')) break
      return { status: 'ok' as const }
    })
  }
