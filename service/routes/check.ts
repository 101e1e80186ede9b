/*
 * /v1/check: whether BPF objects load on one kernel, or on all that match, and why not. The response has a line for each
 * object and kernel, the same as `btfmill check --json` prints.
 */
import { Readable } from 'node:stream'
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import Type from 'typebox'
import { mapOrdered } from '../../storage/index.ts'
import type { Context } from '../http/context.ts'
import { lines, NDJSON } from '../http/schema.ts'
import { lineOf } from '../json.ts'
import { CheckLine, CutLine } from '../objects/lines.ts'
import {
  attemptOnce,
  cutLines,
  type ObjectTask,
  registerObjectRoute,
  type TaskAttempt,
} from './for-kernels.ts'

export const checkRoutes =
  (context: Context): FastifyPluginAsyncTypebox =>
  (app) =>
    registerObjectRoute(app, context, {
      path: '/v1/check',
      takesPartial: true,
      summary: 'Whether BPF objects load on one or many kernels, and why not',
      response: lines(
        'a line for each kernel and object, in the order of the kernels',
        Type.Union([CheckLine, CutLine]),
      ),
      query: {
        'all-programs': Type.Boolean({
          description: 'check also programs in sections that begin with `?`',
          default: false,
        }),
      },
      factsIn: (query) => (query['all-programs'] ? { allPrograms: true } : {}),
      sendOne: async ({ answer, objects, ...task }, _, reply) => {
        const { objects: results, answers } = context
        const lines = mapOrdered(objects, results.width, (object) =>
          lineOfOne(context, { ...task, objects: [object] }, attemptOnce),
        )
        const whole: Buffer[] = []
        for await (const line of cutLines(lines, answers.share - CUT_LINE, objects.length)) {
          answer.add(line.length)
          whole.push(line)
        }
        return reply.type(NDJSON).send(Readable.from(whole))
      },
      lineFor: 'each object',
      line: (task, attempt) => lineOfOne(context, task, attempt),
    })

/** Bytes that are left for a `CutLine`. */
const CUT_LINE = 1024

/** The line for one object. Errors: those of `attempt`. */
async function lineOfOne(
  context: Context,
  { objects, target, priority, signal, sharing }: ObjectTask,
  attempt: TaskAttempt,
): Promise<Buffer> {
  const { name: kernel, build, partial } = target
  const object = objects[0]!
  const results = partial ? context.partial.objects : context.objects
  const check = () => results.checked(priority, target, object, { signal, sharing })
  const json = await attempt(object.sha256, check)
  return Buffer.from(
    lineOf({ object: object.name, kernel, build, ...(partial && { partial }) }, json),
  )
}
