/*
 * /v1/bundles: a bundle, made while it is sent. A client that goes away ends the work; what goes wrong once it flows
 * breaks the connection, so that no client takes a part for the whole.
 */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyRequest } from 'fastify'
import Type from 'typebox'
import { Bundle } from '../bundle/bundle.ts'
import { BundleManifest } from '../bundle/manifest.ts'
import { POLICIES, PROFILE_NAMES } from '../bundle/profile.ts'
import { Quota } from '../concurrency.ts'
import type { Context } from '../http/context.ts'
import { disconnectSignal } from '../http/requester.ts'
import { bytes, problems } from '../http/schema.ts'
import { acceptUploads, bodyLimitOf, OBJECTS, objectLimits, objectsOf } from '../http/upload.ts'
import { FilterQuery, filterOf } from '../kernel/filter.ts'

const BundleQuery = Type.Object({
  ...FilterQuery.properties,
  profile: Type.Enum(PROFILE_NAMES, { description: 'who is to read it' }),
  unsupported: Type.Enum(POLICIES, {
    description: 'kernels on which an object does not work',
    default: POLICIES[0],
  }),
  zstd: Type.Boolean({
    description: 'zstd in place of xz; for the profile tree',
    default: false,
  }),
  part: Type.Enum(['archive', 'manifest'], {
    description: 'the manifest alone is what the archive has in it, or would have',
    default: 'archive',
  }),
})

const ARCHIVES = ['application/x-tar', 'application/gzip', 'application/x-xz', 'application/zstd']

export const bundleRoutes =
  (context: Context): FastifyPluginAsyncTypebox =>
  async (app) => {
    const { store, catalog, pool, settings, uploadQuota } = context
    const room = new Quota(settings.bundles, 'so many bundles are made already')
    const limits = objectLimits(settings.uploadLimit)
    await acceptUploads(app, uploadQuota, limits)

    app.post(
      '/v1/bundles',
      {
        bodyLimit: bodyLimitOf(limits),
        schema: {
          tags: ['Objects'],
          summary: 'The BTF of many kernels in one archive, as one consumer reads it',
          description:
            'The files `object` of a multipart form are BPF objects: then there is of each BTF only what they need. Without a body BTF is whole.',
          consumes: ['multipart/form-data'],
          form: OBJECTS,
          querystring: BundleQuery,
          response: {
            200: {
              description: 'the archive, or its manifest',
              content: {
                ...Object.assign({}, ...ARCHIVES.map((type) => bytes('', type).content)),
                'application/json': { schema: BundleManifest },
              },
            },
            ...problems(
              ...([
                'invalid_request',
                'unknown_kernel',
                'too_large',
                'unsupported_media_type',
              ] as const),
              ...(['invalid_object', 'too_complex', 'unsupported', 'busy', 'unavailable'] as const),
            ),
          },
        },
      },
      async (request, reply) => {
        reply.raw.once('close', room.take())
        const objects = hasBody(request) ? await objectsOf(request, limits) : []
        const { profile, unsupported, zstd, part } = request.query
        const filter = filterOf(request.query)
        const gone = disconnectSignal(reply)
        const bundle = await Bundle.open(
          { store, catalog, pool, profile, filter, objects, unsupported, zstd },
          gone,
        )
        reply.header('cache-control', 'no-store')
        if (part === 'manifest')
          return reply.type('application/json').send((await bundle.survey(gone)).manifest)
        reply.header('content-disposition', `attachment; filename="${bundle.file}"`)
        return reply.type(bundle.type).send(bundle.archive())
      },
    )
  }

const hasBody = ({ headers, body }: FastifyRequest): boolean =>
  headers['content-type'] !== undefined || body !== undefined
