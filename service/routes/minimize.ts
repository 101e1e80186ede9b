/*
 * /v1/minimize: the part of a kernel's BTF that BPF objects need. For one kernel the response is BTF, for many it is lines
 * of JSON. An archive of many is a bundle (/v1/bundles).
 */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import Type from 'typebox'
import { BTF_TYPE } from '../cache/btf-bodies.ts'
import type { Context } from '../http/context.ts'
import { bytes, DialectQuery, lines } from '../http/schema.ts'
import { sendMade } from '../http/send.ts'
import { jsonOf, lineOf } from '../json.ts'
import { CutLine, MinimizeLine } from '../objects/lines.ts'
import { namedWarnings } from '../objects/warnings.ts'
import { registerObjectRoute } from './for-kernels.ts'

/** The number of warnings in a header: clients accept 8 KB of headers, and a text has up to 700 bytes. */
const MAX_WARNINGS = 8

/** JSON in ASCII, as a header needs it. */
const asciiJson = (texts: readonly string[]): string =>
  JSON.stringify(texts.slice(0, MAX_WARNINGS)).replace(
    /[^\x20-\x7e]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
/** Bytes of BTF in a line; what objects of large agents need has some hundred thousand. */
const MAX_IN_LINE = 3 * 1024 * 1024

const tooLarge = (size: number) => ({
  code: 'too_large',
  message: `the minimised BTF has ${size} bytes, more than the ${MAX_IN_LINE} of a line: ask for this kernel alone`,
})

export const minimizeRoutes =
  (context: Context): FastifyPluginAsyncTypebox =>
  (app) =>
    registerObjectRoute(app, context, {
      path: '/v1/minimize',
      summary: 'The part of the BTF of one or many kernels that BPF objects need',
      description:
        'With `kernel` or `digest` the response is BTF; a header `btfmill-warnings` has the warnings that lines have, as a JSON array. Otherwise it is a line of JSON for each kernel that matches. To get an archive, use `/v1/bundles`.',
      query: DialectQuery.properties,
      response: {
        description: "raw BTF, whose ETag is the bytes' SHA-256; or a line for each kernel",
        content: {
          ...bytes('', BTF_TYPE).content,
          ...lines('', Type.Union([MinimizeLine, CutLine])).content,
        },
      },
      sendOne: async ({ objects, target, priority, dialect, signal, answer }, request, reply) => {
        const options = { signal, dialect }
        const made = await context.objects.minimized(priority, target, objects, options)
        const warnings = namedWarnings(objects)
        if (warnings.length > 0) reply.header('btfmill-warnings', asciiJson(warnings))
        answer.add(made.bytes.length)
        return await sendMade(request, reply, made)
      },
      lineFor: 'all objects',
      line: async ({ objects, target, priority, ...options }, attempt) => {
        const { name: kernel, build, size: of } = target
        const json = await attempt('all', async () => {
          const made = await context.objects.minimized(priority, target, objects, options)
          const size = made.bytes.length
          if (size > MAX_IN_LINE) return jsonOf({ error: tooLarge(size) })
          const btf = made.bytes.toString('base64')
          const warnings = namedWarnings(objects)
          const content = { sha256: made.sha256, size, of, btf }
          return jsonOf(warnings.length > 0 ? { ...content, warnings } : content)
        })
        return Buffer.from(lineOf({ kernel, build }, json))
      },
    })
