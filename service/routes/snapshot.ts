/* /v1/catalog: the stored snapshot of all records and its signature, for clients that verify it with a public key. */

import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { SNAPSHOT_KEY, StoreError, sha256Of, signatureKey } from '../../storage/index.ts'
import { SHORT } from '../cache/btf-bodies.ts'
import { ServiceError } from '../error.ts'
import type { Context } from '../http/context.ts'
import { bytes, KNOWN, problems } from '../http/schema.ts'
import { isKnown } from '../http/send.ts'

const TYPES = {
  [SNAPSHOT_KEY]: { type: 'application/zstd', summary: 'The snapshot of all records' },
  [signatureKey(SNAPSHOT_KEY)]: {
    type: 'text/plain',
    summary: "The snapshot's minisign signature",
  },
}

export const snapshotRoutes =
  ({ store }: Context): FastifyPluginAsyncTypebox =>
  async (app) => {
    for (const [key, { type, summary }] of Object.entries(TYPES)) {
      const schema = {
        tags: ['Kernels'],
        summary,
        response: {
          200: bytes('as stored', type),
          304: KNOWN,
          ...problems('not_found', 'unavailable'),
        },
      }
      app.get(`/v1/${key}`, { schema }, async (request, reply) => {
        const { body, size, etag } = await store.get(key).catch((error: unknown) => {
          if (!(error instanceof StoreError) || error.code !== 'not_found') throw error
          throw new ServiceError('not_found', `the store has no ${key}`)
        })
        const tag = `"${sha256Of(etag).slice(0, 32)}"`
        reply.headers({ 'cache-control': SHORT, etag: tag })
        if (isKnown(request, tag)) {
          body.destroy()
          return reply.code(304).send()
        }
        return reply.header('content-length', size).type(type).send(body)
      })
    }
  }
