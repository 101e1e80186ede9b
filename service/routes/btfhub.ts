/*
 * Archives at the paths that clients of other services request: the tree of btfhub-archive,
 * `<ID>/<VER>/<ARCH>/<K>.btf.tar.xz`, and Datadog's, which is the same tree below /btfs with a catalogue of digests. Below
 * /newest the newest of several builds is chosen, for clients that take a base URL but no build.
 */

import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import Type from 'typebox'
import { ARCHIVE_SUFFIX } from '../../storage/index.ts'
import { SHORT } from '../cache/btf-bodies.ts'
import { ServiceError } from '../error.ts'
import type { Context } from '../http/context.ts'
import { forDropIn, resolveBtf } from '../http/resolve.ts'
import {
  bodies,
  ChoiceQuery,
  choiceOf,
  DialectQuery,
  foundHeaders,
  KNOWN,
  NO_BTF_FOR_OTHERS,
  problems,
} from '../http/schema.ts'
import { sendBytes } from '../http/send.ts'
import { kernelOf, Segment } from '../kernel/name.ts'

export const ARCHIVE_TYPE = 'application/x-xz'

/** Path prefixes of the drop-in routes, and whether the newest of several builds is chosen there. */
export const MOUNTS = [
  { prefix: '', newest: false },
  { prefix: '/newest', newest: true },
] as const

/** First segments of the paths of other routes, so never the name of a distribution; versions of the API are `v` and a number. */
const RESERVED = new Set(
  `api assets btfs buildid check coolbpf diff docs functions healthz home kernels metrics newest openapi.json readyz
  search status types`.split(/\s+/),
)

/** Tells whether a first segment of a path belongs to other routes than the tree. */
export const isReserved = (segment: string): boolean =>
  RESERVED.has(segment) || /^v\d+$/.test(segment)

const FileParams = Type.Object({
  distro: Segment,
  version: Segment,
  arch: Segment,
  file: Type.String({
    minLength: 1,
    maxLength: 300,
    description: `\`uname -r\`, then \`${ARCHIVE_SUFFIX}\``,
  }),
})

const Catalogue = Type.Record(
  Type.String(),
  Type.Record(
    Type.String(),
    Type.Record(Type.String(), Type.Record(Type.String(), Type.Object({ sha256: Type.String() }))),
  ),
  { description: 'by architecture, distribution, version and release' },
)

const TREES = {
  '/:distro/:version/:arch/:file': "A kernel's archive, as btfhub-archive serves it",
  '/btfs/:distro/:version/:arch/:file': "A kernel's archive, as Datadog's agent requests it",
}

export const archiveTreeRoutes =
  (context: Context): FastifyPluginAsyncTypebox =>
  async (app) => {
    for (const { prefix, newest } of MOUNTS) {
      for (const [path, summary] of Object.entries(TREES)) {
        app.get(
          `${prefix}${path}`,
          {
            onRequest: async (request, reply) => {
              if (isReserved((request.params as { distro: string }).distro)) reply.callNotFound()
            },
            schema: {
              hide: newest,
              tags: ['Drop-ins'],
              summary,
              params: FileParams,
              querystring: Type.Object({ ...ChoiceQuery.properties, ...DialectQuery.properties }),
              response: {
                ...bodies('a tar with one file, `<release>.btf`', ARCHIVE_TYPE),
                ...problems(
                  'invalid_request',
                  'invalid_name',
                  'not_found',
                  'unknown_blob',
                  ...NO_BTF_FOR_OTHERS,
                  'invalid_range',
                  'unavailable',
                ),
              },
            },
          },
          async (request, reply) => {
            const { file, ...name } = request.params
            const kernel = kernelOf({ ...name, release: releaseOf(file, ARCHIVE_SUFFIX) })
            const asked = choiceOf(request.query)
            const choice = { ...asked, newest: newest || asked.newest === true }
            const record = await forDropIn(resolveBtf(context, request, kernel, choice))
            const { bytes, sha256 } = await context.archives.get(record, request.query.dialect)
            const tagged = { etag: `"${sha256}"`, cacheControl: SHORT }
            const headers = foundHeaders(kernel, choice, record)
            return sendBytes(request, reply, bytes, { ...tagged, headers, type: ARCHIVE_TYPE })
          },
        )
      }

      app.get(
        `${prefix}/btfs/catalog.json`,
        {
          schema: {
            hide: newest,
            tags: ['Drop-ins'],
            summary: 'The SHA-256 of every archive, as Datadog serves it',
            description:
              'Kernels whose archive was never packed are left out. Their number is in the header `btfmill-missing`, and the request starts to pack them. Kernels whose builds differ are left out, too, and are not counted.',
            response: {
              200: Catalogue,
              304: KNOWN,
              ...problems('unavailable'),
            },
          },
        },
        async (request, reply) => {
          const { bytes, sha256, missing } = await context.archives.catalogue({ newest })
          reply.header('btfmill-missing', missing)
          const cacheControl = missing > 0 ? 'no-cache' : SHORT
          const tagged = { etag: `"${sha256}"`, cacheControl, type: 'application/json' }
          return sendBytes(request, reply, bytes, tagged)
        },
      )
    }
  }

/** The release in a file name. Errors: `not_found` for another file name. */
export function releaseOf(file: string, suffix: string): string {
  if (!file.endsWith(suffix) || file === suffix)
    throw new ServiceError(
      'not_found',
      `no file ${JSON.stringify(file)}: expected a release, then ${suffix}`,
    )
  return file.slice(0, -suffix.length)
}
