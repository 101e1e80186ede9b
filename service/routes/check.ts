/*
 * /v1/check: would these objects load on a kernel, or on all that match; where not, and why. A line for each object and
 * kernel, as `btfmill check --json` has them.
 */
import Type from 'typebox'
import { RELOCATION_KINDS } from '../../bpf/index.ts'
import type { Context } from '../http/context.ts'
import { lines, NDJSON } from '../http/schema.ts'
import { lineOf } from '../json.ts'
import {
  justOnce,
  type ObjectTask,
  objectRoutes,
  Refused,
  type TaskAttempt,
} from './for-kernels.ts'

const Loads = Type.Enum(['yes', 'depends', 'no'])

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
      ...{ is: Type.Literal('ok'), old: Value, new: Value, bytes: Type.Optional(Sizes) },
    }),
    Type.Object({ is: Type.Literal('absent'), old: Value }),
    Type.Object({ is: Type.Literal('poisoned'), why: Type.Enum(['missing', 'access']) }),
    Type.Object({ is: Type.Literal('fatal'), why: Type.String(), message: Type.String() }),
  ],
  { description: 'what becomes of the instruction' },
)

const Relocation = Type.Object({
  instruction: Type.Integer({ description: 'its number in the program' }),
  kind: Type.Enum([...RELOCATION_KINDS, 'unknown']),
  access: Type.String({ description: 'what is accessed or asked for, as C' }),
  outcome: Outcome,
  source: Type.Optional(SourceLine),
  guard: Type.Optional(
    Type.Object(
      {
        is: Type.Enum(['guarded', 'unguarded', 'reached only if']),
        onlyIf: Type.Optional(SourceLine),
      },
      { description: 'whether the verifier reaches a poisoned instruction' },
    ),
  ),
})

const Program = Type.Object({
  ...{ name: Type.String(), section: Type.String(), loads: Loads },
  relocations: Type.Array(Relocation),
})

const Line = Type.Object({
  object: Type.String({ description: 'the name of its file' }),
  kernel: Type.String({ description: '`DISTRO/VERSION/ARCH/RELEASE`, or the digest' }),
  build: Type.Optional(
    Type.String({ description: 'the version of its package, where builds of the kernel differ' }),
  ),
  loads: Type.Optional(Loads),
  programs: Type.Optional(Type.Array(Program)),
  error: Type.Optional(Refused),
})

const linesOf = async (
  { objects }: Context,
  { objects: sent, target: { name: kernel, build, sha256 }, gone, lane }: ObjectTask,
  attempt: TaskAttempt,
): Promise<string> => {
  const said = sent.map(async (object) => {
    const check = () => objects.checked(lane, sha256, object, gone)
    return lineOf({ object: object.name, kernel, build }, await attempt(object.sha256, check))
  })
  return (await Promise.all(said)).join('')
}

export const checkRoutes = objectRoutes({
  path: '/v1/check',
  summary: 'Whether BPF objects load on one kernel, or on all that match, and why not',
  answer: lines('for each kernel and each object, as they are done', Line),
  one: async (context, trial, _, reply) =>
    reply.type(NDJSON).send(await linesOf(context, trial, justOnce)),
  many: linesOf,
})
