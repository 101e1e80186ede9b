/*
 * /v1/check: whether BPF objects load on one kernel, or on all that match, and why not. The response has a line for each
 * object and kernel, the same as `btfmill check --json` prints.
 */
import { Readable } from 'node:stream'
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import Type from 'typebox'
import { REASONS, RELOCATION_KINDS } from '../../bpf/index.ts'
import { mapOrdered } from '../../storage/index.ts'
import type { Context } from '../http/context.ts'
import { lines, NDJSON } from '../http/schema.ts'
import { lineOf } from '../json.ts'
import {
  attemptOnce,
  CutLine,
  cutLines,
  LineError,
  type ObjectTask,
  registerObjectRoute,
  type TaskAttempt,
} from './for-kernels.ts'

const Verdict = Type.Enum(['yes', 'cannot_tell', 'no'])

const SourceLine = Type.Object({
  file: Type.String(),
  line: Type.Integer(),
  text: Type.String(),
})

const Value = Type.String({ pattern: '^[0-9]+$', description: '64 bits, as libbpf prints them' })
const Sizes = Type.Object({ old: Type.Integer(), new: Type.Integer() })

const Outcome = Type.Union(
  [
    Type.Object({
      is: Type.Literal('ok'),
      old: Value,
      new: Value,
      bytes: Type.Optional(Sizes),
      field: Type.Optional(Sizes),
    }),
    Type.Object({ is: Type.Literal('absent'), old: Value }),
    Type.Object({ is: Type.Literal('poisoned'), why: Type.Enum(['missing', 'access']) }),
    Type.Object({ is: Type.Literal('fatal'), why: Type.String(), message: Type.String() }),
  ],
  { description: 'how libbpf relocates the instruction' },
)

const Relocation = Type.Object({
  instruction: Type.Integer({ description: 'index in the program' }),
  kind: Type.Enum([...RELOCATION_KINDS, 'unknown']),
  access: Type.String({ description: 'the accessed field or queried type, as C' }),
  outcome: Outcome,
  source: Type.Optional(SourceLine),
  guard: Type.Optional(
    Type.Object(
      {
        is: Type.Enum(['guarded', 'unguarded', 'reached only if']),
        onlyIf: Type.Optional(SourceLine),
      },
      { description: 'whether the verifier can reach a poisoned instruction' },
    ),
  ),
})

const Reason = Type.Object(
  {
    code: Type.Enum([...REASONS]),
    verdict: Type.Enum(['no', 'cannot_tell']),
    stage: Type.Enum(['load', 'attach', 'run']),
    message: Type.String(),
    instruction: Type.Optional(Type.Integer({ description: 'index in the program' })),
    access: Type.Optional(Type.String()),
    source: Type.Optional(SourceLine),
    onlyIf: Type.Optional(SourceLine),
  },
  { description: 'why it fails or may fail, and when: as it is loaded, attached, or runs' },
)

const Program = Type.Object({
  name: Type.String(),
  section: Type.String(),
  loaded: Type.Boolean({ description: 'false: libbpf loads it only if it is asked to' }),
  verdict: Verdict,
  loads: Verdict,
  reasons: Type.Array(Reason),
  relocations: Type.Array(Relocation),
})

const Line = Type.Object({
  object: Type.String({ description: 'file name' }),
  kernel: Type.String({ description: '`DISTRO/VERSION/ARCH/RELEASE`, or the digest' }),
  build: Type.Optional(
    Type.String({
      description: 'the package version, if the kernel has several builds with different BTF',
    }),
  ),
  verdict: Type.Optional(Verdict),
  loads: Type.Optional(Verdict),
  reasons: Type.Optional(Type.Array(Reason, { description: 'reasons outside of programs' })),
  programs: Type.Optional(Type.Array(Program)),
  error: Type.Optional(LineError),
})

export const checkRoutes =
  (context: Context): FastifyPluginAsyncTypebox =>
  (app) =>
    registerObjectRoute(app, context, {
      path: '/v1/check',
      summary: 'Whether BPF objects load on one or many kernels, and why not',
      response: lines(
        'a line for each kernel and object, in the order of the kernels',
        Type.Union([Line, CutLine]),
      ),
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
  { objects, target, priority, signal }: ObjectTask,
  attempt: TaskAttempt,
): Promise<Buffer> {
  const { name: kernel, build } = target
  const object = objects[0]!
  const check = () => context.objects.checked(priority, target, object, signal)
  const json = await attempt(object.sha256, check)
  return Buffer.from(lineOf({ object: object.name, kernel, build }, json))
}
