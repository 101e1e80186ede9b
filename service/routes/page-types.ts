/* Pages of what is in BTF: /types, /types/NAME, /functions/NAME, and /search, which finds names in the newest kernel. */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyReply, FastifyRequest } from 'fastify'
import Type from 'typebox'
import { BtfError, FunctionList } from '../../bpf/index.ts'
import { ServiceError } from '../error.ts'
import type { Context } from '../http/context.ts'
import { disconnectSignal } from '../http/requester.ts'
import { sendErrorPage, sendPage, UNCACHED } from '../http/send-page.ts'
import { nameOf, parseName } from '../kernel/name.ts'
import { functionsIn } from '../objects/functions.ts'
import type { KernelRow } from '../page/kernel-table.ts'
import { addressOf, nameIn, searchKernels, searchPage } from '../page/search-page.ts'
import { type FunctionFacts, typePage, typesPage } from '../page/type-page.ts'
import { functionUrl, typeUrl, urlOf } from '../page/url.ts'
import type { TypesOfName } from '../threads/worker.ts'

/** Names that a search lists. */
const MAX_NAMES = 60

const hide = true
const Name = Type.String({ minLength: 1, maxLength: 512 })
const NamePath = Type.Object({ name: Name })
const Kernel = Type.Optional(Type.String({ maxLength: 1024 }))

export const typePageRoutes =
  (context: Context): FastifyPluginAsyncTypebox =>
  async (app) => {
    const { kernelTable, views, catalog, store } = context
    app.setErrorHandler(sendErrorPage)

    /** The row of a kernel that a query names, or the newest. Errors: `unknown_kernel`. */
    const rowOf = (text: string | undefined): KernelRow & { served: object } => {
      const table = kernelTable()
      const row = text === undefined || text === '' ? table.newest() : table.find(canonical(text))
      if (row?.served) return row as KernelRow & { served: object }
      const links = [{ href: '/kernels', text: 'All kernels' }]
      throw new ServiceError(
        'unknown_kernel',
        text ? `there is no BTF of ${text.slice(0, 200)}` : 'no kernel of this store has BTF yet',
        { details: { links } },
      )
    }

    const show = async (
      request: FastifyRequest,
      reply: FastifyReply,
      name: string,
      kernel: string | undefined,
      part: 'type' | 'function',
    ) => {
      const row = rowOf(kernel)
      const { sha256 } = row.served!.btf
      const found = await views.named(sha256, name, disconnectSignal(reply))
      const isFunction = ({ kind }: TypesOfName['listings'][number]) => kind === 'func'
      if (!found) throw await unknownName(name, row, kernel, disconnectSignal(reply))
      const isHere = found.listings.some((listing) => isFunction(listing) === (part === 'function'))
      if (!isHere)
        return reply.redirect((part === 'type' ? functionUrl : typeUrl)(name, kernel), 302)
      const attach = part === 'function' ? await factsOf(row, name) : undefined
      return await sendPage(
        request,
        reply,
        typePage({
          ...{ table: kernelTable(), row, name, found, part },
          isChosen: kernel !== undefined && kernel !== '',
          ...(attach && { attach }),
        }),
      )
    }

    const unknownName = async (
      name: string,
      row: KernelRow,
      kernel: string | undefined,
      signal: AbortSignal,
    ): Promise<ServiceError> => {
      const near = await views.search(row.served!.btf.sha256, name, 5, signal)
      const links = near.map((one) => ({
        href: (one.kind === 'func' ? functionUrl : typeUrl)(one.name, kernel),
        text: `${one.kind === 'func' ? 'function' : one.kind} ${one.name}`,
      }))
      return new ServiceError(
        'not_found',
        `${row.kernel.release} has no type or function ${name.slice(0, 200)}`,
        { details: { links } },
      )
    }

    const factsOf = async (row: KernelRow, name: string): Promise<FunctionFacts> => {
      const bytes = await functionsIn(store, row.served?.symbols)
      if (!bytes) return { known: false, present: false, marks: [], clones: [] }
      const functions = FunctionList.decode(bytes)
      const marks = functions.find(name)
      return {
        known: true,
        present: marks !== undefined,
        marks: [...(marks ?? [])],
        clones: functions.clonesOf(name).slice(0, 20),
      }
    }

    app.get(
      '/types',
      { schema: { hide, querystring: Type.Object({ name: Type.Optional(Name), kernel: Kernel }) } },
      (request, reply) => {
        const { name, kernel } = request.query
        const text = name?.trim()
        if (text) {
          const wanted = nameIn(text) ?? { name: text }
          const address = addressOf({ kind: 'struct', name: wanted.name }, wanted.member)
          const [path, anchor] = address.split('#')
          return reply.redirect(`${urlOf(path!, { kernel })}${anchor ? `#${anchor}` : ''}`, 302)
        }
        const table = kernelTable()
        const row = kernel ? table.find(canonical(kernel)) : table.newest()
        return sendPage(request, reply, typesPage(table, row))
      },
    )

    const query = Type.Object({ kernel: Kernel })
    app.get(
      '/types/:name',
      { schema: { hide, params: NamePath, querystring: query } },
      (request, reply) => show(request, reply, request.params.name, request.query.kernel, 'type'),
    )
    app.get(
      '/functions/:name',
      { schema: { hide, params: NamePath, querystring: query } },
      (request, reply) =>
        show(request, reply, request.params.name, request.query.kernel, 'function'),
    )

    app.get(
      '/search',
      { schema: { hide, querystring: Type.Object({ q: Type.String({ maxLength: 300 }) }) } },
      async (request, reply) => {
        const text = request.query.q.trim()
        if (text === '') return reply.redirect('/', 302)
        const table = kernelTable()
        const kernels = searchKernels(catalog, table, text)
        const row = table.newest()
        const wanted = kernels.exact ? undefined : nameIn(text)
        const found =
          wanted && row?.served
            ? await views
                .search(row.served.btf.sha256, wanted.name, MAX_NAMES, disconnectSignal(reply))
                .catch(noNames)
            : []
        const answer = searchPage(table, text, kernels, { row, found })
        if ('href' in answer) return reply.redirect(answer.href, 302)
        return await sendPage(request, reply, answer, { cacheControl: UNCACHED })
      },
    )
  }

/** A BTF that cannot be read has no names. */
function noNames(error: unknown): [] {
  if (error instanceof BtfError) return []
  throw error
}

/** The name of a kernel as the table has it; the text as it is if it is no name. */
function canonical(text: string): string {
  try {
    const kernel = parseName(text)
    return kernel ? nameOf(kernel) : text
  } catch {
    return text
  }
}
