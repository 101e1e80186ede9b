/* Pages of differences: /diff/A..B, where A and B are names of kernels, and /diff, where both are chosen. */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import Type from 'typebox'
import type { DeclarationKind } from '../../bpf/index.ts'
import { ServiceError } from '../error.ts'
import type { Context } from '../http/context.ts'
import { disconnectSignal } from '../http/requester.ts'
import { sendErrorPage, sendPage } from '../http/send-page.ts'
import {
  DIFF_CHANGES,
  DIFF_KINDS,
  DIFF_LENGTH,
  type DiffParts,
  type DiffQuery,
  diffFormPage,
  diffPage,
  partsOf,
  partsOfAnswer,
} from '../page/diff-page.ts'
import type { KernelRow } from '../page/kernel-table.ts'
import { searchKernels } from '../page/search-page.ts'
import { diffUrl } from '../page/url.ts'
import { askIndex } from './page-index.ts'

const hide = true
const Text = Type.Optional(Type.String({ maxLength: 1024 }))

const Filter = Type.Object({
  kind: Type.Optional(Type.Unsafe<DeclarationKind>(Type.Enum([...DIFF_KINDS]))),
  change: Type.Optional(Type.Enum([...DIFF_CHANGES])),
  name: Type.Optional(Type.String({ maxLength: 255 })),
  page: Type.Optional(Type.Integer({ minimum: 1, maximum: 10_000 })),
})

export const diffPageRoutes =
  (context: Context): FastifyPluginAsyncTypebox =>
  async (app) => {
    const { kernelTable, catalog, views } = context
    app.setErrorHandler(sendErrorPage)

    /** The one kernel with BTF that a text names. Errors: `unknown_kernel`, `invalid_request` if it names several. */
    const rowOf = (text: string) => {
      const { rows, exact } = searchKernels(catalog, kernelTable(), text.trim())
      const found = exact ? rows.filter(({ served }) => served) : []
      const [row] = found
      const links = [
        { href: '/diff', text: 'Choose two kernels' },
        ...found.slice(0, 20).map(({ name }) => ({ href: `/kernels/${name}`, text: name })),
      ]
      if (!row)
        throw new ServiceError('unknown_kernel', `there is no BTF of ${text.slice(0, 200)}`, {
          details: { links },
        })
      if (found.length > 1)
        throw new ServiceError(
          'invalid_request',
          `${text.slice(0, 200)} names ${found.length} kernels: expected DISTRO/VERSION/ARCH/RELEASE`,
          { details: { links } },
        )
      return row as ComparedKernel
    }

    /** A page of the index; undefined if it has none. */
    const indexed = async (
      before: ComparedKernel,
      after: ComparedKernel,
      { kind, change, name: part, page = 1 }: DiffQuery,
    ): Promise<DiffParts | undefined> => {
      const [from, to] = [before, after].map(({ kernel, served }) => {
        return { ...kernel, sha256: served.btf.sha256 }
      })
      const cursor = String((page - 1) * DIFF_LENGTH)
      const filter = { ...(kind && { kinds: [kind] }), part, change }
      const query = { limit: DIFF_LENGTH, cursor, ...filter }
      const answer = await askIndex(context, 'diff', from!, to!, query)
      if (!answer) return undefined
      const isFiltered = (kind ?? part ?? change) !== undefined
      const all = isFiltered ? await askIndex(context, 'diff', from!, to!, { limit: 0 }) : answer
      return partsOfAnswer(answer, all?.counts ?? answer.counts)
    }

    app.get(
      '/diff',
      { schema: { hide, querystring: Type.Object({ a: Text, b: Text }) } },
      (request, reply) => {
        const { a, b } = request.query
        if (a && b) return reply.redirect(diffUrl(rowOf(a).name, rowOf(b).name), 302)
        return sendPage(request, reply, diffFormPage(kernelTable()))
      },
    )

    app.get(
      '/diff/*',
      { schema: { hide, params: Type.Object({ '*': Type.String() }), querystring: Filter } },
      async (request, reply) => {
        const { name, ...query } = request.query
        const [a, b] = endsOf(request.params['*'])
        const [before, after] = [rowOf(a), rowOf(b)]
        const filter = { ...query, ...(name && { name }) }
        const parts =
          (await indexed(before, after, filter)) ??
          partsOf(
            await views.diff(
              before.served.btf.sha256,
              after.served.btf.sha256,
              disconnectSignal(reply),
            ),
            filter,
          )
        return await sendPage(request, reply, diffPage(before, after, parts, filter))
      },
    )
  }

type ComparedKernel = KernelRow & { served: NonNullable<KernelRow['served']> }

/** Two names of kernels with `..` between them; a name has three slashes. Errors: `invalid_request`. */
function endsOf(text: string): [string, string] {
  const [, a, b] = /^((?:[^/]+\/){3}[^/]+?)\.\.((?:[^/]+\/){3}[^/]+)$/.exec(text) ?? []
  if (a === undefined || b === undefined)
    throw new ServiceError(
      'invalid_request',
      'expected /diff/A..B, each DISTRO/VERSION/ARCH/RELEASE',
      {
        details: { links: [{ href: '/diff', text: 'Choose two kernels' }] },
      },
    )
  return [a, b]
}
