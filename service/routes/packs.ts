/* /v1/packs: the packs of the store, each one immutable file with the BTF of many kernels, for mirrors and for clients. */

import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import Type from 'typebox'
import { isPackError, packsOf, StoreError } from '../../storage/index.ts'
import { IMMUTABLE, SHORT } from '../cache/btf-bodies.ts'
import { ServiceError } from '../error.ts'
import type { Context } from '../http/context.ts'
import { bodies, DigestParams, problems, Sha256 } from '../http/schema.ts'
import { sendStream } from '../http/send.ts'
import { PackSummaries } from '../pack/summary.ts'

/** The media type of a pack. */
const PACK_TYPE = 'application/vnd.btfmill.pack'

const Count = (description: string) => Type.Integer({ minimum: 0, description })

const Series = Type.Object({
  distro: Type.String(),
  version: Type.String(),
  arch: Type.String(),
  flavour: Type.String({ description: 'the end of its releases, such as `-cloud-amd64`' }),
  kernels: Count('kernels of this series'),
})

const Packs = Type.Object({
  packs: Type.Array(
    Type.Object({
      digest: Sha256,
      size: Count('bytes of the file'),
      indexSize: Count('bytes of its header and index, with which it begins'),
      kernels: Count('kernels, by name and build'),
      members: Count('different BTF'),
      series: Type.Array(Series),
    }),
  ),
})

const unknownPack = (digest: string): ServiceError =>
  new ServiceError('not_found', `no pack has the SHA-256 digest ${digest}`)

const tags = ['Packs']

export const packRoutes =
  ({ store }: Context): FastifyPluginAsyncTypebox =>
  async (app) => {
    const summaries = new PackSummaries()

    app.get(
      '/v1/packs',
      {
        schema: {
          tags,
          summary: 'The packs of the store',
          description:
            'A pack has the BTF of many kernels, most of them as the difference from another. A kernel may be in several packs, and a pack may be replaced by a larger one that has all its kernels.',
          response: { 200: Packs, ...problems('unavailable') },
        },
      },
      async (_, reply) => {
        await packsOf(store).refresh()
        const packs = await summaries.of(packsOf(store).list(), isPackError)
        return reply.header('cache-control', SHORT).send({
          packs: packs.map(({ series, ...pack }) => ({ ...pack, series: [...series] })),
        })
      },
    )

    app.get(
      '/v1/packs/:digest',
      {
        schema: {
          tags,
          summary: 'A pack, by the SHA-256 of its bytes',
          description: 'Any kernel in it can be read with two ranges: the index, and its chain.',
          params: DigestParams,
          response: {
            ...bodies('the pack; its ETag is its SHA-256', PACK_TYPE),
            ...problems('invalid_request', 'not_found', 'invalid_range', 'unavailable'),
          },
        },
      },
      async (request, reply) => {
        const { digest } = request.params
        const packs = packsOf(store)
        if (!packs.find(digest)) await packs.refresh()
        const pack = packs.find(digest)
        if (!pack) throw unknownPack(digest)
        const description = { etag: `"${digest}"`, cacheControl: IMMUTABLE, type: PACK_TYPE }
        return await sendStream(request, reply, pack.info.size, description, async (range) => {
          return await pack.open(range).catch((error: unknown) => {
            const isGone = error instanceof StoreError && error.code === 'not_found'
            throw isGone ? unknownPack(digest) : error
          })
        })
      },
    )
  }
