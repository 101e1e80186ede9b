/* /v1/catalog: the snapshot of all records and its signature, as the store has them, for those who trust only a key. */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { SNAPSHOT_KEY, StoreError, signatureKey } from '../storage/index.ts'
import { SHORT } from './body.ts'
import type { Context } from './context.ts'
import { ServiceError } from './error.ts'

const TYPES = {
  [SNAPSHOT_KEY]: 'application/zstd',
  [signatureKey(SNAPSHOT_KEY)]: 'text/plain; charset=utf-8',
}

export const snapshotRoutes =
  ({ store }: Context): FastifyPluginAsyncTypebox =>
  async (app) => {
    for (const [key, type] of Object.entries(TYPES)) {
      app.get(`/v1/${key}`, async (_, reply) => {
        const { body, size } = await store.get(key).catch((error: unknown) => {
          if (!(error instanceof StoreError) || error.code !== 'not_found') throw error
          throw new ServiceError('not_found', `there is no ${key}`)
        })
        reply.headers({ 'cache-control': SHORT, 'content-length': size }).type(type)
        return reply.send(body)
      })
    }
  }
