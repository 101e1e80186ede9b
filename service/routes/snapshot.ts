/* /v1/catalog: the snapshot of all records and its signature, as the store has them, for those who trust only a key. */

import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { SNAPSHOT_KEY, StoreError, signatureKey } from '../../storage/index.ts'
import { SHORT } from '../cache/btf-bodies.ts'
import { ServiceError } from '../error.ts'
import type { Context } from '../http/context.ts'
import { bytes, problems } from '../http/schema.ts'

const TYPES = {
  [SNAPSHOT_KEY]: { type: 'application/zstd', said: 'The snapshot of all records' },
  [signatureKey(SNAPSHOT_KEY)]: { type: 'text/plain', said: "The snapshot's minisign signature" },
}

export const snapshotRoutes =
  ({ store }: Context): FastifyPluginAsyncTypebox =>
  async (app) => {
    for (const [key, { type, said }] of Object.entries(TYPES)) {
      const schema = {
        tags: ['Kernels'],
        ...{
          summary: said,
          response: {
            200: bytes('as it is stored', type),
            ...problems('not_found', 'unavailable'),
          },
        },
      }
      app.get(`/v1/${key}`, { schema }, async (_, reply) => {
        const { body, size } = await store.get(key).catch((error: unknown) => {
          if (!(error instanceof StoreError) || error.code !== 'not_found') throw error
          throw new ServiceError('not_found', `there is no ${key}`)
        })
        reply.headers({ 'cache-control': SHORT, 'content-length': size }).type(type)
        return reply.send(body)
      })
    }
  }
