/* The parts of schemas that routes share: names, choices, bodies, problems. */
import type { Readable } from 'node:stream'
import Type, { type TSchema } from 'typebox'
import { KernelName } from '../../storage/index.ts'
import { BundleFinding } from '../bundle/manifest.ts'
import { BTF_TYPE, type BtfSelector, DIALECT_NAMES } from '../cache/btf-bodies.ts'
import type { ServiceErrorCode } from '../error.ts'
import { type Available, type BuildChoice, moduleDigests } from '../kernel/lookup.ts'
import { PublicFailure } from '../kernel/public-record.ts'
import { PROBLEM_TYPE, STATUS } from './problem.ts'

export const Sha256 = Type.String({ pattern: '^[0-9a-f]{64}$' })

export const BuildId = Type.String({
  pattern: '^(?:[0-9A-Fa-f]{2}){1,64}$',
  description: 'hex of the GNU build-id note',
})

const CHOICE = {
  build: Type.Optional(BuildId),
  'uname-version': Type.Optional(
    Type.String({ minLength: 1, maxLength: 256, description: '`uname -v`' }),
  ),
  ambiguous: Type.Optional(
    Type.Literal('newest', { description: 'of several builds of one kernel, take the newest' }),
  ),
}

const FORM = {
  dialect: Type.Optional(
    Type.Unsafe<(typeof DIALECT_NAMES)[number]>(
      Type.Enum(DIALECT_NAMES, { description: 'only the kinds that this libbpf knows' }),
    ),
  ),
}

/** What picks a build. */
export const ChoiceQuery = Type.Object(CHOICE)

/** Parameters that select a build and the form of its BTF. */
export const BtfQuery = Type.Object({
  ...CHOICE,
  ...FORM,
  modules: Type.Optional(
    Type.Literal('merged', { description: 'with the types of those modules that are known' }),
  ),
})
export type BtfQuery = Type.Static<typeof BtfQuery>

export const FormQuery = Type.Object(FORM)

export const DigestParams = Type.Object({ digest: Sha256 })

export function choiceOf(query: Omit<BtfQuery, 'dialect'>): BuildChoice {
  const { build, 'uname-version': unameVersion, ambiguous, modules } = query
  return {
    ...(build !== undefined && { build }),
    ...(unameVersion !== undefined && { unameVersion }),
    newest: ambiguous === 'newest',
    withModules: modules === 'merged',
  }
}

/** What is sent of a record. */
export function wantedOf(
  record: Available,
  { modules, dialect }: Pick<BtfQuery, 'modules' | 'dialect'>,
): BtfSelector {
  return {
    sha256: record.btf.sha256,
    ...(modules === 'merged' && { modules: moduleDigests(record) }),
    ...(dialect !== undefined && { dialect }),
  }
}

/** An answer of bytes. */
export const bytes = (description: string, type: string) => ({
  description,
  content: {
    [type]: { schema: Type.Unsafe<Buffer | Readable>({ type: 'string', format: 'binary' }) },
  },
})

export const NDJSON = 'application/x-ndjson'

/** An answer of lines, each of them JSON of that schema. */
export const lines = (description: string, line: TSchema) => ({
  description,
  content: {
    [NDJSON]: {
      schema: Type.Unsafe<Readable | string>({
        ...{ type: 'string', description: 'a line each', contentMediaType: 'application/json' },
        contentSchema: line,
      }),
    },
  },
})

/** An answer of text. */
export const text = (description: string) => ({
  description,
  content: { 'text/plain': { schema: Type.String() } },
})

/** The answer to a client that has it already. */
export const KNOWN = Type.Unsafe<undefined>({ type: 'null', description: 'the client has it' })

/** The answers with a body that can be had in part, and that a client may have already. */
export const bodies = (description: string, type: string = BTF_TYPE) => ({
  200: bytes(description, type),
  206: bytes('the range that was asked for', type),
  304: KNOWN,
})

/** One of several builds that all match. */
const Build = Type.Object({
  ...KernelName.properties,
  build: Type.Optional(BuildId),
  unameVersion: Type.Optional(Type.String()),
  packageVersion: Type.String(),
  sha256: Sha256,
})

const Problem = (codes: readonly ServiceErrorCode[]) =>
  Type.Object({
    type: Type.Literal('about:blank'),
    title: Type.String(),
    status: Type.Integer(),
    code: Type.Enum([...codes]),
    detail: Type.String(),
    // of `ambiguous`, `failed`, `pending`, `invalid_object` and `unsupported`
    builds: Type.Optional(Type.Array(Build)),
    failure: Type.Optional(PublicFailure),
    job: Type.Optional(Type.String({ description: 'the address of the generation' })),
    reason: Type.Optional(
      Type.String({ description: 'why the bytes are not what they should be' }),
    ),
    findings: Type.Optional(Type.Array(BundleFinding)),
  })

/** What a request for a build may be answered with in place of its BTF, and one for a kernel. */
export const NO_BUILD = ['unknown_kernel', 'has_own_btf', 'generation_failed', 'ambiguous'] as const
export const NO_BTF = [...NO_BUILD, 'pending', 'busy'] as const
/** The same at the doors of others, whose clients take a 202 for what they asked for. */
export const NO_BTF_FOR_OTHERS = [...NO_BUILD, 'busy'] as const

/** The answers for these errors, by status; and for what any route may say. */
export function problems(...codes: ServiceErrorCode[]): Record<string, unknown> {
  const byStatus = Object.groupBy(codes, (code) => String(STATUS[code]))
  const answers = Object.entries(byStatus).map(([status, some = []]) => [
    status,
    answerOf(some, some.join(', ')),
  ])
  return { ...Object.fromEntries(answers), default: answerOf(undefined, 'any other problem') }
}

function answerOf(codes: ServiceErrorCode[] | undefined, description: string) {
  const schema = Problem(codes ?? (Object.keys(STATUS) as ServiceErrorCode[]))
  return { description, content: { [PROBLEM_TYPE]: { schema } } }
}
