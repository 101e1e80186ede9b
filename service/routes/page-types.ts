/* Pages of what is in BTF: /types, /types/NAME, /functions/NAME, and /search, which finds names in the newest kernel. */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyReply, FastifyRequest } from 'fastify'
import Type from 'typebox'
import { BtfError, type DeclarationKind, FunctionList } from '../../bpf/index.ts'
import { FOUND_KINDS } from '../declarations/answers.ts'
import { ServiceError } from '../error.ts'
import type { Context } from '../http/context.ts'
import { disconnectSignal } from '../http/requester.ts'
import { sendErrorPage, sendPage, UNCACHED } from '../http/send-page.ts'
import { nameOf, parseName } from '../kernel/name.ts'
import { functionsIn } from '../objects/functions.ts'
import { type HistoryFilter, historyPage, memberPage } from '../page/history-page.ts'
import type { KernelRow } from '../page/kernel-table.ts'
import {
  addressOf,
  type FoundName,
  foundIn,
  foundInIndex,
  nameIn,
  searchKernels,
  searchPage,
} from '../page/search-page.ts'
import { type FunctionFacts, typePage, typesPage } from '../page/type-page.ts'
import { functionUrl, historyUrl, type PagePart, typeUrl, urlOf } from '../page/url.ts'
import type { TypesOfName } from '../threads/worker.ts'
import { askIndex } from './page-index.ts'

/** What is called like a function, and types of maps. */
const CALLED: readonly DeclarationKind[] = ['func', 'kfunc', 'tracepoint', 'helper', 'map_type']
const TYPES: readonly DeclarationKind[] = ['struct', 'union', 'enum', 'typedef', 'fwd']

/** Names that a search lists. */
const MAX_NAMES = 60

const hide = true
const Name = Type.String({ minLength: 1, maxLength: 512 })
const NamePath = Type.Object({ name: Name })
const Word = Type.Optional(Type.String({ minLength: 1, maxLength: 255 }))
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

    /** The newest kernel that has a name, as the index knows it; undefined without an index, or if none has it. */
    const newestWith = async (name: string, part: PagePart) => {
      const kinds = part === 'function' ? CALLED.slice(0, 1) : TYPES
      const declared = await askIndex(context, 'declared', name, { kinds })
      const row = declared && kernelTable().find(nameOf(declared.kernel))
      return row?.served && row
    }

    /** The number of forms that a name has in all kernels; 0 without an index. */
    const formsOf = async (name: string, part: PagePart): Promise<number> => {
      const kinds = part === 'function' ? CALLED : TYPES
      const answer = await askIndex(context, 'search', name, { kinds, limit: kinds.length })
      const own = answer?.found.filter((one) => one.name === name && one.of === undefined) ?? []
      return own.reduce((sum, { forms = 0 }) => sum + forms, 0)
    }

    const show = async (
      request: FastifyRequest,
      reply: FastifyReply,
      name: string,
      kernel: string | undefined,
      part: PagePart,
    ) => {
      const named = (of: KernelRow) =>
        views.named(of.served!.btf.sha256, name, disconnectSignal(reply))
      let row: KernelRow = rowOf(kernel)
      let found = await named(row)
      const other = found || kernel ? undefined : await newestWith(name, part)
      if (other) {
        row = other
        found = await named(row)
      }
      const isFunction = ({ kind }: TypesOfName['listings'][number]) => kind === 'func'
      const isHere = found?.listings.some((one) => isFunction(one) === (part === 'function'))
      const forms = await formsOf(name, part)
      // a tracepoint, a helper, or what other kernels have
      if (!isHere && forms > 0) return reply.redirect(historyUrl(name, part), 302)
      if (!found) throw await unknownName(name, row, kernel, disconnectSignal(reply))
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
          ...(forms > 0 && { history: { href: historyUrl(name, part), forms } }),
        }),
      )
    }

    /** The page of a member: its history, or without an index its row in the page of the type. */
    const showMember = async (
      request: FastifyRequest,
      reply: FastifyReply,
      path: string,
      filter: HistoryFilter,
    ) => {
      const dot = path.indexOf('.')
      const [name, member] = [path.slice(0, dot), path.slice(dot + 1)]
      const histories = await askIndex(context, 'memberHistory', name, member)
      if (!histories) return reply.redirect(addressOf({ kind: 'struct', name }, member), 302)
      if (histories.length === 0)
        throw new ServiceError('unknown_type', `no kernel declares ${path.slice(0, 200)}`, {
          details: { links: [{ href: typeUrl(name), text: name }] },
        })
      return await sendPage(request, reply, memberPage(name, member, histories, filter))
    }

    /** Errors: `unavailable` while the index is made. */
    const historiesOf = async (name: string, kinds: readonly DeclarationKind[]) => {
      const histories = await askIndex(context, 'history', name, kinds)
      if (histories) return histories
      throw new ServiceError('unavailable', 'the index of all types is being made; retry later')
    }

    const showHistory = async (
      request: FastifyRequest,
      reply: FastifyReply,
      name: string,
      part: PagePart,
      filter: HistoryFilter,
    ) => {
      if (!context.declarations)
        throw new ServiceError('not_found', 'this service has no index of types', {
          details: { links: [{ href: typeUrl(name), text: name }] },
        })
      const kinds = part === 'function' ? CALLED : TYPES
      const histories = await historiesOf(name, kinds)
      if (histories.length === 0)
        throw new ServiceError('unknown_type', `no kernel declares ${name.slice(0, 200)}`, {
          details: { links: [{ href: '/types', text: 'Types and functions' }] },
        })
      return await sendPage(request, reply, historyPage(name, histories, part, filter))
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
        'unknown_type',
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
    const Filter = Type.Object({ distro: Word, version: Word })
    app.get(
      '/types/:name',
      {
        schema: {
          hide,
          params: NamePath,
          querystring: Type.Object({ ...query.properties, ...Filter.properties }),
        },
      },
      (request, reply) => {
        const { name } = request.params
        const { kernel, ...filter } = request.query
        if (/^[^.]+\.[^.]/.test(name)) return showMember(request, reply, name, filter)
        return show(request, reply, name, kernel, 'type')
      },
    )
    for (const [path, part] of [
      ['types', 'type'],
      ['functions', 'function'],
    ] as const)
      app.get(
        `/${path}/:name/history`,
        { schema: { hide, params: NamePath, querystring: Filter } },
        (request, reply) => showHistory(request, reply, request.params.name, part, request.query),
      )
    app.get(
      '/functions/:name',
      { schema: { hide, params: NamePath, querystring: query } },
      (request, reply) =>
        show(request, reply, request.params.name, request.query.kernel, 'function'),
    )

    /** What a text may name: in all kernels, or without an index in the newest. */
    const namesFor = async (
      text: string,
      row: KernelRow | undefined,
      signal: AbortSignal,
    ): Promise<FoundName[]> => {
      const wanted = nameIn(text)
      if (!wanted) return []
      const { name, member } = wanted
      const path = member === undefined ? name : `${name}.${member}`
      const answer = await askIndex(context, 'search', path, {
        kinds: FOUND_KINDS.filter((kind) => kind !== 'kernel'),
        limit: MAX_NAMES,
      })
      if (answer) return answer.found.map(foundInIndex)
      if (!row?.served) return []
      const { sha256 } = row.served.btf
      const found = await views.search(sha256, name, MAX_NAMES, signal).catch(noNames)
      return found.map((one) => foundIn(one, name, member))
    }

    app.get(
      '/search',
      { schema: { hide, querystring: Type.Object({ q: Type.String({ maxLength: 300 }) }) } },
      async (request, reply) => {
        const text = request.query.q.trim()
        if (text === '') return reply.redirect('/', 302)
        const table = kernelTable()
        const kernels = searchKernels(catalog, table, text)
        const row = table.newest()
        const names = kernels.exact ? [] : await namesFor(text, row, disconnectSignal(reply))
        const answer = searchPage(table, text, kernels, names)
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
