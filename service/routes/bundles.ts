/*
 * /v1/bundles: a bundle, built while it is sent. The work ends when the client disconnects. An error after the first byte
 * closes the connection, so that no client takes a part for the whole bundle.
 */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyRequest } from 'fastify'
import Type from 'typebox'
import { readWithPartial, withPartial } from '../../storage/index.ts'
import { Bundle } from '../bundle/bundle.ts'
import { BundleManifest } from '../bundle/manifest.ts'
import { POLICIES, PROFILE_NAMES } from '../bundle/profile.ts'
import type { Context } from '../http/context.ts'
import { takePlace } from '../http/place.ts'
import { disconnectSignal } from '../http/requester.ts'
import { bytes, DialectQuery, PartialQuery, problems } from '../http/schema.ts'
import { acceptUploads, bodyLimitOf, OBJECTS, objectLimits, objectsOf } from '../http/upload.ts'
import { FilterQuery, filterOf } from '../kernel/filter.ts'
import { requireMatches } from '../kernel/named.ts'
import { partialNotMinimized } from './for-kernels.ts'

const BundleQuery = Type.Object({
  ...FilterQuery.properties,
  ...DialectQuery.properties,
  ...PartialQuery.properties,
  profile: Type.Enum(PROFILE_NAMES, { description: 'the consumer that reads the archive' }),
  unsupported: Type.Enum(POLICIES, {
    description: 'what to do with kernels on which an object does not work',
    default: POLICIES[0],
  }),
  zstd: Type.Boolean({
    description: 'compress with zstd, not xz; only for the profile `tree`',
    default: false,
  }),
  part: Type.Enum(['archive', 'manifest'], {
    description: 'the archive, or only its manifest',
    default: 'archive',
  }),
})

const ARCHIVES = ['application/x-tar', 'application/gzip', 'application/x-xz', 'application/zstd']

export const bundleRoutes =
  (context: Context): FastifyPluginAsyncTypebox =>
  async (app) => {
    const { store, catalog, pool, settings, declarations } = context
    const limits = objectLimits(settings.uploadLimit)
    await acceptUploads(app, context, limits)

    app.post(
      '/v1/bundles',
      {
        bodyLimit: bodyLimitOf(limits),
        schema: {
          tags: ['Objects'],
          summary: 'An archive with the BTF of many kernels, for one consumer',
          description:
            'Send BPF objects as files `object` of a multipart form to get only the parts of the BTF that they need. Without a body the archive has the whole BTF.',
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
              'invalid_request',
              'unknown_kernel',
              'too_large',
              'unsupported_media_type',
              'invalid_object',
              'too_complex',
              'unsupported',
              'busy',
              'unavailable',
            ),
          },
        },
      },
      async (request, reply) => {
        takePlace(context.bundles, request, reply, settings.idleTimeout)
        const objects = hasBody(request) ? await objectsOf(request, limits) : []
        const { profile, unsupported, zstd, part, dialect, partial } = request.query
        if (partial && objects.length > 0) throw partialNotMinimized()
        const filter = filterOf(request.query)
        const source = partial
          ? {
              store: readWithPartial(store),
              catalog: withPartial(catalog, context.partial.catalog, filter),
            }
          : { store, catalog }
        requireMatches(source.catalog, filter)
        const signal = disconnectSignal(reply)
        const window = settings.bundleWindow
        const bundle = await Bundle.open(
          {
            ...{ ...source, pool, profile, filter, objects, unsupported, zstd, window },
            ...(dialect && { dialect }),
            findAlike: declarations?.findAlike,
          },
          signal,
        )
        reply.header('cache-control', 'no-store')
        if (part === 'manifest')
          return reply.type('application/json').send((await bundle.dryRun(signal)).manifest)
        reply.header('content-disposition', `attachment; filename="${bundle.file}"`)
        return reply.type(bundle.type).send(bundle.archive())
      },
    )
  }

const hasBody = ({ headers, body }: FastifyRequest): boolean =>
  headers['content-type'] !== undefined || body !== undefined
