/* POST …/vmlinux.h: the part of a kernel's C header that BPF objects use. A GET of the same address (btf.ts) is the whole. */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import Type from 'typebox'
import { HEADER_TYPE } from '../cache/btf-bodies.ts'
import type { Context } from '../http/context.ts'
import { callerOf, disconnectSignal } from '../http/requester.ts'
import { resolveBtf } from '../http/resolve.ts'
import { ChoiceQuery, choiceOf, foundHeaders, NO_BTF, problems, text } from '../http/schema.ts'
import { sendMade } from '../http/send.ts'
import { acceptUploads, bodyLimitOf, OBJECTS, objectLimits, objectsOf } from '../http/upload.ts'
import { moduleDigests } from '../kernel/lookup.ts'
import { kernelOf, NameParams } from '../kernel/name.ts'

const ERRORS = [
  ...(['invalid_request', 'invalid_name', 'unknown_blob', 'unavailable', ...NO_BTF] as const),
  ...(['too_large', 'unsupported_media_type', 'invalid_object', 'too_complex'] as const),
]

export const headerRoutes =
  (context: Context): FastifyPluginAsyncTypebox =>
  async (app) => {
    const limits = objectLimits(context.settings.uploadLimit)
    await acceptUploads(app, context, limits)

    app.post(
      '/v1/btf/:distro/:version/:arch/:release/vmlinux.h',
      {
        bodyLimit: bodyLimitOf(limits),
        schema: {
          tags: ['Objects'],
          summary: 'The types of a kernel that BPF objects use, as a C header',
          description:
            'The types that the BTF of the objects names, with all their members, and those that they need; the enums of the BPF API; and the prototypes of the kfuncs that the objects call.',
          consumes: ['multipart/form-data'],
          form: OBJECTS,
          params: NameParams,
          querystring: Type.Omit(ChoiceQuery, ['partial']),
          response: { 200: text('the header'), ...problems(...ERRORS) },
        },
      },
      async (request, reply) => {
        const signal = disconnectSignal(reply)
        const objects = await context.objects.open(await objectsOf(request, limits), signal)
        const kernel = kernelOf(request.params)
        const choice = choiceOf(request.query)
        const record = await resolveBtf(context, request, kernel, choice)
        const answer = context.answers.lease(callerOf(request))
        reply.raw.once('close', () => answer.end())
        const stored = { sha256: record.btf.sha256, modules: moduleDigests(record) }
        const made = await context.objects.header(
          context.objects.interactive,
          stored,
          objects,
          signal,
        )
        answer.add(made.bytes.length)
        reply.headers(foundHeaders(kernel, choice, record))
        return await sendMade(request, reply, made, `${HEADER_TYPE}; charset=utf-8`)
      },
    )
  }
