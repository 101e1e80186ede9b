/*
 * /v1/minimize: of a kernel's BTF what some objects need. For one kernel the BTF itself; for all that match a line of JSON
 * each, for who wants them apart: an archive of them is a bundle.
 */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import Type from 'typebox'
import { BTF_TYPE, sendMade } from './body.ts'
import { goneSignal } from './caller.ts'
import { Refused } from './check.ts'
import type { Context } from './context.ts'
import { Room } from './flight.ts'
import { bytes, lines, NDJSON, problems, Sha256 } from './schema.ts'
import {
  ChosenQuery,
  lineOf,
  REFUSALS,
  survey,
  type Target,
  theOne,
  untilTooComplex,
} from './survey.ts'
import { acceptUploads, bodyLimitOf, OBJECTS, objectLimits, objectsOf } from './upload.ts'

const Line = Type.Object({
  kernel: Type.String({ description: '`DISTRO/VERSION/ARCH/RELEASE`' }),
  build: Type.Optional(
    Type.String({ description: 'the version of its package, where builds of the kernel differ' }),
  ),
  sha256: Type.Optional(Sha256),
  size: Type.Optional(Type.Integer({ description: 'bytes' })),
  of: Type.Optional(Type.Integer({ description: 'bytes of the whole' })),
  btf: Type.Optional(Type.String({ contentEncoding: 'base64' })),
  error: Type.Optional(Refused),
})

export const minimizeRoutes =
  (context: Context): FastifyPluginAsyncTypebox =>
  async (app) => {
    const { objects, settings, uploads } = context
    const room = new Room(settings.surveys, 'so much is minimised already')
    const limits = objectLimits(settings.uploadLimit)
    await acceptUploads(app, uploads, limits)

    app.post(
      '/v1/minimize',
      {
        bodyLimit: bodyLimitOf(limits),
        schema: {
          tags: ['Objects'],
          summary: "Of a kernel's BTF, or of all that match, what BPF objects need",
          description:
            'For `kernel` or `digest` the answer is BTF; for all that match, lines of JSON. For an archive of many see `/v1/bundles`.',
          consumes: ['multipart/form-data'],
          form: OBJECTS,
          querystring: ChosenQuery,
          response: {
            200: {
              description: "raw BTF; its ETag is the bytes' SHA-256. Or for each kernel a line",
              content: {
                ...bytes('', BTF_TYPE).content,
                ...lines('', Line).content,
              },
            },
            ...problems(...REFUSALS),
          },
        },
      },
      async (request, reply) => {
        const gone = goneSignal(reply)
        const { query } = request
        const sent = await objects.open(await objectsOf(request, limits), gone)
        const one = await theOne(context, request, query)
        if (one) {
          const least = await objects.minimized(objects.one, one.sha256, sent, gone)
          return await sendMade(request, reply, least)
        }
        reply.raw.once('close', room.take())
        reply.type(NDJSON).header('cache-control', 'no-store')
        const attempt = untilTooComplex()
        const lineFor = async ({ name: kernel, build, sha256: whole, size: of }: Target) => {
          const minimize = async () => {
            const { bytes, sha256 } = await objects.minimized(objects.many, whole, sent, gone)
            const btf = bytes.toString('base64')
            return JSON.stringify({ sha256, size: bytes.length, of, btf })
          }
          return lineOf({ kernel, build }, await attempt('all', minimize))
        }
        return reply.send(survey(context, query, lineFor))
      },
    )
  }
