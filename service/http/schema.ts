/* Schemas that routes share: names, choice of a build, bodies, problems. */
import type { Readable } from 'node:stream'
import Type, { type TSchema } from 'typebox'
import { KernelName } from '../../storage/index.ts'
import { BundleFinding } from '../bundle/manifest.ts'
import { BTF_TYPE, type BtfSelector, DIALECT_NAMES } from '../cache/btf-bodies.ts'
import { DELTA_TYPE, MAX_HAVE } from '../client/delta.ts'
import type { ServiceErrorCode } from '../error.ts'
import { type Available, foundBy, type LookupChoice, moduleDigests } from '../kernel/lookup.ts'
import { nameOf } from '../kernel/name.ts'
import { PublicFailure } from '../kernel/public-record.ts'
import { PROBLEM_TYPE, STATUS } from './problem.ts'

export const Sha256 = Type.String({ pattern: '^[0-9a-f]{64}$' })

export const BuildId = Type.String({
  pattern: '^(?:[0-9A-Fa-f]{2}){1,64}$',
  description: 'GNU build-id in hex',
})

const CHOICE = {
  build: Type.Optional(BuildId),
  'uname-version': Type.Optional(
    Type.String({ minLength: 1, maxLength: 256, description: '`uname -v`' }),
  ),
  ambiguous: Type.Optional(
    Type.Literal('newest', { description: 'take the newest build if several builds match' }),
  ),
  like: Type.Optional(
    Type.String({
      maxLength: 255,
      description: "os-release's ID_LIKE: the parents, closest first",
    }),
  ),
  codename: Type.Optional(
    Type.String({
      maxLength: 255,
      description: "os-release's UBUNTU_CODENAME, DEBIAN_CODENAME or VERSION_CODENAME",
    }),
  ),
}

/** Allows partial BTF, made from headers. */
const PARTIAL = {
  partial: Type.Optional(
    Type.Literal('allow', {
      description:
        'where the whole BTF is not there, take partial BTF, made from kernel headers: it lacks many types that the kernel has. The header `btf-partial` then says so, and on routes for many kernels a member `partial`',
    }),
  ),
}

const DIALECT = {
  dialect: Type.Optional(
    Type.Unsafe<(typeof DIALECT_NAMES)[number]>(
      Type.Enum(DIALECT_NAMES, {
        description:
          'use only the BTF kinds that this libbpf version knows; from libbpf-1.7 on, types are sorted by name',
      }),
    ),
  ),
}

const FORM = {
  ...DIALECT,
  container: Type.Optional(
    Type.Literal('elf', {
      description: 'the BTF as section `.BTF` of an ELF file, for loaders that take no raw BTF',
    }),
  ),
}

const HAVE = {
  have: Type.Optional(
    Type.String({
      pattern: `^[0-9a-f]{64}(?:,[0-9a-f]{64}){0,${MAX_HAVE - 1}}$`,
      description:
        'SHA-256 of BTF that the client has, comma-separated; the answer may then be a delta, whose header `btfmill-delta-parent` names one of them',
    }),
  ),
}

/** Parameters that select a build. */
export const ChoiceQuery = Type.Object({ ...CHOICE, ...PARTIAL })

/** Allows partial BTF of the kernels that match filters. */
export const PartialQuery = Type.Object(PARTIAL)

/** Parameters that select a build and the form of its BTF. */
export const BtfQuery = Type.Object({
  ...CHOICE,
  ...PARTIAL,
  ...FORM,
  ...HAVE,
  modules: Type.Optional(
    Type.Literal('merged', {
      description: 'add the types of the kernel modules whose BTF is stored',
    }),
  ),
})
export type BtfQuery = Type.Static<typeof BtfQuery>

export const FormQuery = Type.Object({ ...FORM, ...PARTIAL, ...HAVE })

export const DialectQuery = Type.Object(DIALECT)

export const DigestParams = Type.Object({ digest: Sha256 })

export function choiceOf(query: Omit<BtfQuery, 'dialect'>): LookupChoice {
  const { build, 'uname-version': unameVersion, ambiguous, modules, like, codename } = query
  return {
    ...(build !== undefined && { build }),
    ...(unameVersion !== undefined && { unameVersion }),
    ...(like !== undefined && { like }),
    ...(codename !== undefined && { codename }),
    newest: ambiguous === 'newest',
    withModules: modules === 'merged',
  }
}

/** The header that names the kernel of a response. */
export const KERNEL_HEADER = 'btfmill-kernel'

/** The headers that say which kernel's BTF a response has, and how it was found. */
export const foundHeaders = (
  kernel: KernelName,
  choice: LookupChoice,
  record: Available,
): Readonly<Record<string, string>> => ({
  [KERNEL_HEADER]: nameOf(record.kernel),
  'btfmill-found-by': foundBy(kernel, choice, record),
})

/**
 * The headers of an answer with partial BTF. `btf-partial` has what it was made of, and the numbers of its named structs and
 * unions and of headers (RFC 9651, an item with parameters).
 */
export const partialHeaders = ({ headers }: Available): Readonly<Record<string, string>> => ({
  'btf-partial': headers
    ? `headers; structs=${headers.structs}; headers=${headers.compiled}`
    : 'headers',
})

/** The BTF of a record that a query asks for. */
export function wantedOf(
  record: Available,
  { modules, dialect, container }: Pick<BtfQuery, 'modules' | 'dialect' | 'container'>,
): BtfSelector {
  return {
    sha256: record.btf.sha256,
    ...(modules === 'merged' && { modules: moduleDigests(record) }),
    ...(dialect !== undefined && { dialect }),
    ...(container !== undefined && { container }),
  }
}

/** A response of bytes. */
export const bytes = (description: string, type: string) => ({
  description,
  content: {
    [type]: { schema: Type.Unsafe<Buffer | Readable>({ type: 'string', format: 'binary' }) },
  },
})

export const NDJSON = 'application/x-ndjson'

/** A response of lines, each JSON of one schema. */
export const lines = (description: string, line: TSchema) => ({
  description,
  content: {
    [NDJSON]: {
      schema: Type.Unsafe<Readable | string>({
        type: 'string',
        description: 'one JSON object per line',
        contentMediaType: 'application/json',
        contentSchema: line,
      }),
    },
  },
})

/** A response of text. */
export const text = (description: string) => ({
  description,
  content: { 'text/plain': { schema: Type.String() } },
})

/** The response to a client that has the body already. */
export const KNOWN = Type.Unsafe<undefined>({
  type: 'null',
  description: 'not modified: the client has this body',
})

/** The responses of a body with support for ranges and conditional requests. */
export const bodies = (description: string, type: string = BTF_TYPE) => ({
  200: bytes(description, type),
  206: bytes('the requested range', type),
  304: KNOWN,
})

/** The responses of a body that may also be a delta. */
export const bodiesOrDelta = (description: string) => {
  const whole = bodies(description)
  const delta = bytes('', DELTA_TYPE).content
  return { ...whole, 200: { ...whole[200], content: { ...whole[200].content, ...delta } } }
}

/** One of several matching builds. */
const Build = Type.Object({
  ...KernelName.properties,
  build: Type.Optional(BuildId),
  unameVersion: Type.Optional(Type.String()),
  packageVersion: Type.String(),
  sha256: Sha256,
})

/** Why an upstream did not send BTF. */
const UpstreamProblem = Type.Object({
  url: Type.String(),
  code: Type.String(),
  message: Type.String(),
})

const Problem = (codes: readonly ServiceErrorCode[]) =>
  Type.Object({
    type: Type.Literal('about:blank'),
    title: Type.String(),
    status: Type.Integer(),
    code: Type.Enum([...codes]),
    detail: Type.String(),
    // details of `ambiguous`, `generation_failed`, `pending`, `invalid_object`, `unsupported` and `upstream_failed`
    builds: Type.Optional(Type.Array(Build)),
    failure: Type.Optional(PublicFailure),
    job: Type.Optional(Type.String({ description: 'URL of the generation' })),
    reason: Type.Optional(Type.String({ description: 'why the object or BTF is invalid' })),
    findings: Type.Optional(Type.Array(BundleFinding)),
    upstreams: Type.Optional(Type.Array(UpstreamProblem)),
    findingsOmitted: Type.Optional(Type.Integer({ minimum: 1 })),
  })

/** Errors of a request for the BTF of one build, and of one kernel. */
const NO_BUILD = ['unknown_kernel', 'has_own_btf', 'generation_failed', 'ambiguous'] as const
export const NO_BTF = [...NO_BUILD, 'pending', 'busy', 'upstream_failed'] as const
/** `NO_BTF` on drop-in routes, whose clients take a 202 for success. */
export const NO_BTF_FOR_OTHERS = [...NO_BUILD, 'busy', 'upstream_failed'] as const

/** The responses for these errors by status, and `default` for those of any route. */
export function problems(...codes: ServiceErrorCode[]): Record<string, unknown> {
  const byStatus = Object.groupBy(codes, (code) => String(STATUS[code]))
  const answers = Object.entries(byStatus).map(([status, some = []]) => [
    status,
    answerOf(some, some.join(', ')),
  ])
  return { ...Object.fromEntries(answers), default: answerOf(undefined, 'any other error') }
}

function answerOf(codes: ServiceErrorCode[] | undefined, description: string) {
  const schema = Problem(codes ?? (Object.keys(STATUS) as ServiceErrorCode[]))
  return { description, content: { [PROBLEM_TYPE]: { schema } } }
}
