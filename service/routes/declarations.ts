/* The index of all types: /v1/search, /v1/types, /v1/functions, /v1/diff, /v1/stats. */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import Type, { type TSchema } from 'typebox'
import { DECLARATION_KINDS, type DeclarationKind } from '../../bpf/index.ts'
import type { Catalog, KernelName } from '../../storage/index.ts'
import {
  DeclarationHistory,
  DeclaredIn,
  DiffAnswer,
  FOUND_KINDS,
  FormHolders,
  FormId,
  type FoundKind,
  IndexStats,
  MemberHistory,
  Neighbours,
  SearchAnswer,
  SeriesSummary,
} from '../declarations/answers.ts'
import type { KeptIndex } from '../declarations/keeper.ts'
import { ServiceError } from '../error.ts'
import type { Context } from '../http/context.ts'
import { sendJson } from '../http/json.ts'
import { KNOWN, problems } from '../http/schema.ts'
import { kernelOf, NameParams, parseName } from '../kernel/name.ts'
import { findNamed } from '../kernel/named.ts'
import { didYouMean } from '../kernel/similar.ts'

/** Characters of a name; the index has none that are longer. */
const MAX_NAME = 512
const Name = Type.String({ minLength: 1, maxLength: MAX_NAME })

const KernelText = Type.String({
  minLength: 1,
  maxLength: 1024,
  description: 'DISTRO/VERSION/ARCH/RELEASE, a release, `newest`, or a glob that matches one',
})

const kindsOf = <K extends string>(kinds: readonly K[], description: string) =>
  Type.Optional(
    Type.Array(Type.Unsafe<K>(Type.Enum([...kinds])), {
      minItems: 1,
      maxItems: kinds.length,
      description: `${description}; may be repeated (default: all)`,
    }),
  )

const Kinds = kindsOf<DeclarationKind>(DECLARATION_KINDS, 'kind of declaration')

const pageOf = (usual: number, maximum: number) => ({
  limit: Type.Integer({ minimum: 1, maximum, default: usual }),
  cursor: Type.Optional(
    Type.String({ pattern: '^[0-9]{1,7}$', description: '`next` of the previous page' }),
  ),
})

/** Histories come in pages of runs. */
const RUNS = pageOf(500, 1000)

const SearchParams = Type.Object({
  q: Type.String({
    maxLength: MAX_NAME,
    description: 'name or part of one, TYPE.MEMBER, a release, a build-id or a digest',
  }),
  kind: kindsOf<FoundKind>(FOUND_KINDS, 'kind of result'),
  ...pageOf(20, 100),
})

const DiffParams = Type.Object({
  from: KernelText,
  to: KernelText,
  kind: Kinds,
  name: Type.Optional(Name),
  ...pageOf(100, 1000),
})

/** Functions, and what is called like one. */
const FUNCTIONS = ['func', 'kfunc', 'tracepoint', 'helper'] as const

const found = <T extends TSchema>(schema: T) => ({ 200: schema, 304: KNOWN })
const ERRORS = ['invalid_request', 'not_found', 'busy', 'unavailable'] as const
const NO_TYPE = [...ERRORS, 'unknown_type'] as const

const CONFIG = { crossOrigin: true }

export const declarationRoutes =
  ({ catalog, declarations }: Context): FastifyPluginAsyncTypebox =>
  async (app) => {
    /** The index. Errors: `not_found`. */
    const index = (): KeptIndex => {
      if (declarations) return declarations
      throw new ServiceError('not_found', 'this service has no index of types')
    }

    app.get(
      '/v1/search',
      {
        config: CONFIG,
        schema: {
          tags: ['Types'],
          summary: 'Kernels, types, members and functions by name',
          description:
            'Exact names come first, then names that begin with the text, then those that contain it.',
          querystring: SearchParams,
          response: { ...found(SearchAnswer), ...problems(...ERRORS) },
        },
      },
      async (request, reply) => {
        const { q, kind: kinds, limit, cursor } = request.query
        const answer = await index().ask('search', q, { kinds, limit, cursor })
        return sendJson(request, reply, answer)
      },
    )

    app.get(
      '/v1/types/:name',
      {
        config: CONFIG,
        schema: {
          tags: ['Types'],
          summary: 'What a kernel declares by a name',
          description:
            'Without `kernel`, it is the newest kernel that declares the name. A kernel may have several types of one name.',
          params: Type.Object({ name: Name }),
          querystring: Type.Object({ kernel: Type.Optional(KernelText), kind: Kinds }),
          response: {
            ...found(DeclaredIn),
            ...problems(...NO_TYPE, 'unknown_kernel', 'ambiguous', 'invalid_name'),
          },
        },
      },
      async (request, reply) => {
        const { name } = request.params
        const { kernel: text, kind: kinds } = request.query
        const kernel = text === undefined ? undefined : named(catalog, text)
        const answer = await index().ask('declared', name, { kernel, kinds })
        if (!answer) throw await unknownType(index(), name, text && ` in ${text}`)
        return sendJson(request, reply, answer)
      },
    )

    const next = { next: Type.Optional(Type.String()) }
    const Histories = Type.Object({ declarations: Type.Array(DeclarationHistory), ...next })

    app.get(
      '/v1/types/:name/history',
      {
        config: CONFIG,
        schema: {
          tags: ['Types'],
          summary: 'The forms of a name over all kernels, as runs of each series',
          params: Type.Object({ name: Name }),
          querystring: Type.Object({ kind: Kinds, ...RUNS }),
          response: { ...found(Histories), ...problems(...NO_TYPE) },
        },
      },
      async (request, reply) => {
        const { name } = request.params
        const { kind: kinds, ...page } = request.query
        const answer = await index().ask('historyPage', name, { kinds, ...page })
        if (!answer) throw await unknownType(index(), name)
        return sendJson(request, reply, answer)
      },
    )

    app.get(
      '/v1/types/:name/members/:member/history',
      {
        config: CONFIG,
        schema: {
          tags: ['Types'],
          summary: 'The places of a member, or the values of an enumerator, over all kernels',
          params: Type.Object({ name: Name, member: Name }),
          querystring: Type.Object(RUNS),
          response: {
            ...found(Type.Object({ members: Type.Array(MemberHistory), ...next })),
            ...problems(...NO_TYPE),
          },
        },
      },
      async (request, reply) => {
        const { name, member } = request.params
        const answer = await index().ask('memberHistoryPage', name, member, request.query)
        if (!answer) throw await unknownType(index(), `${name}.${member}`)
        return sendJson(request, reply, answer)
      },
    )

    app.get(
      '/v1/types/:name/forms/:form',
      {
        config: CONFIG,
        schema: {
          tags: ['Types'],
          summary: 'One form of a name, and the kernels that have it',
          params: Type.Object({ name: Name, form: FormId }),
          querystring: Type.Object(pageOf(100, 1000)),
          response: { ...found(FormHolders), ...problems(...NO_TYPE) },
        },
      },
      async (request, reply) => {
        const { name, form } = request.params
        const answer = await index().ask('holders', name, form, request.query)
        if (!answer) throw await unknownType(index(), name, ` with the form ${form}`)
        return sendJson(request, reply, answer)
      },
    )

    app.get(
      '/v1/functions/:name',
      {
        config: CONFIG,
        schema: {
          tags: ['Types'],
          summary: 'The prototypes of a function, kfunc, tracepoint or helper over all kernels',
          params: Type.Object({ name: Name }),
          querystring: Type.Object(RUNS),
          response: { ...found(Histories), ...problems(...NO_TYPE) },
        },
      },
      async (request, reply) => {
        const { name } = request.params
        const { query } = request
        const answer = await index().ask('historyPage', name, { kinds: FUNCTIONS, ...query })
        if (!answer) throw await unknownType(index(), name)
        return sendJson(request, reply, answer)
      },
    )

    app.get(
      '/v1/diff',
      {
        config: CONFIG,
        schema: {
          tags: ['Types'],
          summary: 'What differs between two kernels',
          description:
            'A page has `limit` declarations; one that a kernel has several times may have several entries.',
          querystring: DiffParams,
          response: {
            ...found(DiffAnswer),
            ...problems(...ERRORS, 'unknown_kernel', 'ambiguous', 'invalid_name'),
          },
        },
      },
      async (request, reply) => {
        const { from, to, kind: kinds, name, limit, cursor } = request.query
        const [old, now] = [named(catalog, from), named(catalog, to)]
        const answer = await index().ask('diff', old, now, { kinds, name, limit, cursor })
        if (!answer)
          throw new ServiceError('unknown_kernel', `the BTF of ${from} or ${to} is not indexed`)
        return sendJson(request, reply, answer)
      },
    )

    app.get(
      '/v1/kernels/:distro/:version/:arch/:release/neighbours',
      {
        config: CONFIG,
        schema: {
          tags: ['Kernels'],
          summary: 'The kernels before and after one in its series',
          params: NameParams,
          response: {
            ...found(Neighbours),
            ...problems(...ERRORS, 'unknown_kernel', 'invalid_name'),
          },
        },
      },
      async (request, reply) => {
        const kernel = kernelOf(request.params)
        const answer = await index().ask('neighbours', kernel)
        if (!answer)
          throw new ServiceError(
            'unknown_kernel',
            `the BTF of ${Object.values(kernel).join(' ')} is not indexed`,
          )
        return sendJson(request, reply, answer)
      },
    )

    app.get(
      '/v1/stats',
      {
        config: CONFIG,
        schema: {
          tags: ['Types'],
          summary: 'What the index has: kernels, declarations, forms, and all series',
          response: {
            ...found(
              Type.Object({ ...IndexStats.properties, allSeries: Type.Array(SeriesSummary) }),
            ),
            ...problems(...ERRORS),
          },
        },
      },
      async (request, reply) => {
        const stats = await index().ask('stats')
        return sendJson(request, reply, { ...stats, allSeries: await index().ask('series') })
      },
    )
  }

/** The kernel that a text names. Errors: `unknown_kernel`, `ambiguous`; `invalid_name`. */
function named(catalog: Catalog, text: string): KernelName {
  const exact = /[*?[]/.test(text) ? undefined : parseName(text)
  return exact && catalog.find(exact).length > 0 ? exact : findNamed(catalog, text)
}

/** The error for a name that is not there, with names near it. */
async function unknownType(index: KeptIndex, name: string, where = ''): Promise<ServiceError> {
  const { found } = await index.ask('search', name, { limit: 20 })
  const near = found
    .filter(({ kind }) => kind !== 'kernel')
    .map(({ name, of }) => (of ? `${of.name}.${name}` : name))
    .filter((one) => one !== name)
  const hint = near.length > 0 ? `: ${didYouMean([...new Set(near)].slice(0, 3))}` : ''
  return new ServiceError('unknown_type', `no kernel declares ${name}${where}${hint}`)
}
