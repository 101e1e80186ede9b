/*
 * The three calls of btfhub-online (its docs/openapi.yaml): list the kernels, download a kernel's archive, and customize:
 * the part of a kernel's BTF that a BPF object needs, as a tar.gz.
 */

import { promisify } from 'node:util'
import { gzip } from 'node:zlib'
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyReply, FastifyRequest } from 'fastify'
import Type from 'typebox'
import { archiveArch, packTar, sha256Of } from '../../storage/index.ts'
import { servedRecords } from '../cache/archives.ts'
import { SHORT } from '../cache/btf-bodies.ts'
import { memoizeFor } from '../concurrency.ts'
import type { Context } from '../http/context.ts'
import { callerOf, disconnectSignal } from '../http/requester.ts'
import { forDropIn, resolveBtf } from '../http/resolve.ts'
import {
  bodies,
  bytes,
  ChoiceQuery,
  choiceOf,
  DialectQuery,
  foundHeaders,
  KNOWN,
  NO_BTF_FOR_OTHERS,
  problems,
} from '../http/schema.ts'
import { sendBytes } from '../http/send.ts'
import { acceptUploads, bodyLimitOf, filesOf, formOf } from '../http/upload.ts'
import { type Available, moduleDigests } from '../kernel/lookup.ts'
import { kernelOf, Segment } from '../kernel/name.ts'
import { ARCHIVE_TYPE, MOUNTS } from './btfhub.ts'

const GZIP_TYPE = 'application/gzip'

/** Milliseconds for which the list is reused. */
const LIST_AGE = 10_000

const Identifier = Type.Object({
  distribution: Segment,
  distribution_version: Segment,
  kernel_version: Segment,
  arch: Segment,
})

const Query = Type.Object({
  ...Identifier.properties,
  ...ChoiceQuery.properties,
  ...DialectQuery.properties,
})
type Query = Type.Static<typeof Query>

const ERRORS = [
  'invalid_request',
  'invalid_name',
  'unknown_blob',
  'unavailable',
  ...NO_BTF_FOR_OTHERS,
] as const

export const onlineRoutes =
  (context: Context): FastifyPluginAsyncTypebox =>
  async (app) => {
    const { objects } = context
    const form = { files: 1, fileSize: context.settings.uploadLimit }
    await acceptUploads(app, context, form)

    for (const { prefix, newest } of MOUNTS) {
      const recordFor = async (request: FastifyRequest, reply: FastifyReply, query: Query) => {
        const kernel = kernelOf({
          distro: query.distribution,
          version: query.distribution_version,
          arch: query.arch,
          release: query.kernel_version,
        })
        const asked = choiceOf(query)
        const choice = { ...asked, newest: newest || asked.newest === true }
        const record = await forDropIn(resolveBtf(context, request, kernel, choice))
        reply.headers(foundHeaders(kernel, choice, record))
        return record
      }

      const list = memoizeFor(LIST_AGE, () => {
        const listed = Array.from(servedRecords(context.catalog, { newest }), identifierOf)
        const bytes = Buffer.from(JSON.stringify(listed))
        return { bytes, sha256: sha256Of(bytes) }
      })

      app.get(
        `${prefix}/api/v1/list`,
        {
          schema: {
            hide: newest,
            tags: ['Drop-ins'],
            summary: 'All kernels with BTF, as btfhub-online lists them',
            response: { 200: Type.Array(Identifier), 304: KNOWN, ...problems() },
          },
        },
        (request, reply) => {
          const { bytes, sha256 } = list()
          const tagged = { etag: `"${sha256}"`, cacheControl: SHORT }
          sendBytes(request, reply, bytes, { ...tagged, type: 'application/json' })
        },
      )

      app.get(
        `${prefix}/api/v1/download`,
        {
          schema: {
            hide: newest,
            tags: ['Drop-ins'],
            summary: "A kernel's archive, as btfhub-online serves it",
            querystring: Query,
            response: {
              ...bodies('a tar with one file, `<release>.btf`', ARCHIVE_TYPE),
              ...problems(...ERRORS, 'invalid_range'),
            },
          },
        },
        async (request, reply) => {
          const record = await recordFor(request, reply, request.query)
          const { bytes, sha256 } = await context.archives.get(record, request.query.dialect)
          const tagged = { etag: `"${sha256}"`, cacheControl: SHORT }
          return sendBytes(request, reply, bytes, { ...tagged, type: ARCHIVE_TYPE })
        },
      )

      app.post(
        `${prefix}/api/v1/customize`,
        {
          bodyLimit: bodyLimitOf(form),
          schema: {
            hide: newest,
            tags: ['Drop-ins'],
            summary:
              "The part of a kernel's BTF that a BPF object needs, as btfhub-online returns it",
            consumes: ['multipart/form-data'],
            form: formOf('bpf', 'a BPF object'),
            querystring: Query,
            response: {
              200: bytes('a tar with one file, `<release>.btf`', GZIP_TYPE),
              ...problems(
                ...ERRORS,
                'too_large',
                'unsupported_media_type',
                'invalid_object',
                'too_complex',
              ),
            },
          },
        },
        async (request, reply) => {
          const signal = disconnectSignal(reply)
          const sent = await objects.open(await filesOf(request, 'bpf', form), signal)
          const record = await recordFor(request, reply, request.query)
          const { btf, kernel } = record
          const stored = { sha256: btf.sha256, modules: moduleDigests(record) }
          const minimized = await objects.minimized(objects.interactive, stored, sent, {
            signal,
            dialect: request.query.dialect,
          })
          const bytes = await promisify(gzip)(await packTar(kernel.release, minimized.bytes))
          const answer = context.answers.lease(callerOf(request))
          reply.raw.once('close', () => answer.end())
          answer.add(bytes.length)
          return reply.header('cache-control', 'no-store').type(GZIP_TYPE).send(bytes)
        },
      )
    }
  }

const identifierOf = ({ kernel }: Available): Type.Static<typeof Identifier> => ({
  distribution: kernel.distro,
  distribution_version: kernel.version,
  kernel_version: kernel.release,
  arch: archiveArch(kernel.arch),
})
