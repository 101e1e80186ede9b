/* /v1/btf: the BTF of a kernel, by name, by `uname -r` alone, by build-id, or by the digest of the bytes. */

import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyReply, FastifyRequest } from 'fastify'
import Type from 'typebox'
import { ANY, type KernelName } from '../../storage/index.ts'
import { HEADER_TYPE, IMMUTABLE, SHORT } from '../cache/btf-bodies.ts'
import type { Context } from '../http/context.ts'
import { resolveBtf, resolveBuild, resolveWithPartial } from '../http/resolve.ts'
import {
  BtfQuery,
  BuildId,
  bodies,
  bodiesOrDelta,
  ChoiceQuery,
  choiceOf,
  DigestParams,
  FormQuery,
  foundHeaders,
  KERNEL_HEADER,
  NO_BTF,
  partialHeaders,
  problems,
  text,
  wantedOf,
} from '../http/schema.ts'
import { sendBtf, sendFromCache } from '../http/send.ts'
import type { Available, FoundBy } from '../kernel/lookup.ts'
import { kernelOf, NameParams, nameOf, Segment } from '../kernel/name.ts'

const ReleaseQuery = Type.Object({
  release: Segment,
  distro: Type.Optional(Segment),
  version: Type.Optional(Segment),
  arch: Type.Optional(Segment),
  ...BtfQuery.properties,
})

const HeaderQuery = Type.Omit(BtfQuery, ['dialect', 'container', 'partial'])

const BuildQuery = Type.Omit(BtfQuery, ['build', 'uname-version', 'like', 'codename', 'partial'])

const BTF = bodiesOrDelta(
  "raw BTF, or an ELF file; its ETag is the bytes' SHA-256. With `have`, it may be a delta",
)
/** The digests that a client names. */
const haveIn = ({ have }: { have?: string }): string[] => have?.split(',') ?? []

const ERRORS = ['invalid_request', 'unknown_blob', 'invalid_range', 'unavailable'] as const

export const btfRoutes =
  (context: Context): FastifyPluginAsyncTypebox =>
  async (app) => {
    const preHandler = sendFromCache(context)
    const send = (
      request: FastifyRequest,
      reply: FastifyReply,
      record: Available,
      query: BtfQuery,
      found: Readonly<Record<string, string>> = {},
      partial = false,
    ) => {
      const { sha256, size } = record.btf
      const { dialect, container } = query
      const form = `${new URLSearchParams({ ...(dialect && { dialect }), ...(container && { container }) })}`
      const path = `/v1/btf/sha256/${sha256}`
      const location = { 'content-location': form ? `${path}?${form}` : path }
      if (partial) {
        const { bodies } = context.partial
        return sendBtf({ bodies }, request, reply, wantedOf(record, query), {
          cacheControl: SHORT,
          headers: { ...found, ...partialHeaders(record) },
        })
      }
      return sendBtf(context, request, reply, wantedOf(record, query), {
        cacheControl: SHORT,
        size,
        headers: { ...(query.modules === undefined && location), ...found },
        have: haveIn(query),
      })
    }
    const sendFound = async (
      request: FastifyRequest,
      reply: FastifyReply,
      kernel: KernelName,
      query: BtfQuery,
    ) => {
      const choice = choiceOf(query)
      const allowed = query.partial === 'allow'
      const { record, partial } = await resolveWithPartial(
        context,
        request,
        kernel,
        choice,
        allowed,
      )
      const found = foundHeaders(kernel, choice, record)
      return await send(request, reply, record, query, found, partial)
    }

    app.get(
      '/v1/btf/:distro/:version/:arch/:release',
      {
        config: { crossOrigin: true },
        preHandler,
        schema: {
          tags: ['BTF'],
          summary: 'The BTF of a kernel',
          description: `Distribution, version and architecture may each be \`${ANY}\`. A kernel that is not found by its name is looked up under the parents of its distribution, then by its release alone. The header \`btfmill-kernel\` has the name of the kernel that was found, and \`btfmill-found-by\` is \`name\`, \`build-id\`, \`parent\` or \`release\`.`,
          params: NameParams,
          querystring: BtfQuery,
          response: { ...BTF, ...problems(...ERRORS, 'invalid_name', ...NO_BTF) },
        },
      },
      async (request, reply) => {
        return await sendFound(request, reply, kernelOf(request.params), request.query)
      },
    )

    app.get(
      '/v1/btf',
      {
        config: { crossOrigin: true },
        preHandler,
        schema: {
          tags: ['BTF'],
          summary: 'The BTF of a kernel, by `uname -r`',
          description: 'Give `distro`, `version` and `arch` to narrow the search.',
          querystring: ReleaseQuery,
          response: { ...BTF, ...problems(...ERRORS, 'invalid_name', ...NO_BTF) },
        },
      },
      async (request, reply) => {
        const { distro = ANY, version = ANY, arch = ANY, release } = request.query
        const kernel = kernelOf({ distro, version, arch, release })
        return await sendFound(request, reply, kernel, request.query)
      },
    )

    app.get(
      '/v1/btf/build-id/:buildId',
      {
        config: { crossOrigin: true },
        preHandler,
        schema: {
          tags: ['BTF'],
          summary: 'The BTF of a kernel, by build-id',
          params: Type.Object({ buildId: BuildId }),
          querystring: BuildQuery,
          response: { ...BTF, ...problems(...ERRORS, ...NO_BTF) },
        },
      },
      async (request, reply) => {
        const { params, query } = request
        const record = await resolveBuild(context, request, params.buildId, choiceOf(query))
        const found = {
          [KERNEL_HEADER]: nameOf(record.kernel),
          'btfmill-found-by': 'build-id' satisfies FoundBy,
        }
        return await send(request, reply, record, query, found)
      },
    )

    app.get(
      '/v1/btf/sha256/:digest',
      {
        config: { crossOrigin: true },
        preHandler,
        schema: {
          tags: ['BTF'],
          summary: 'BTF, by the SHA-256 of its bytes',
          params: DigestParams,
          querystring: FormQuery,
          response: { ...BTF, ...problems(...ERRORS) },
        },
      },
      async (request, reply) => {
        const { digest: sha256 } = request.params
        const { dialect, container } = request.query
        const have = haveIn(request.query)
        const wanted = {
          sha256,
          ...(dialect && { dialect }),
          ...(container && { container }),
        }
        const [whole] = context.catalog.findBy('sha256', sha256)
        const [made] = context.partial.catalog.findBy('sha256', sha256)
        if (!whole && made?.btf && request.query.partial === 'allow') {
          const { bodies } = context.partial
          return await sendBtf({ bodies }, request, reply, wanted, {
            cacheControl: SHORT,
            headers: partialHeaders({ ...made, btf: made.btf }),
          })
        }
        // a later version of btfmill may convert or wrap differently
        const cacheControl = dialect || container ? SHORT : IMMUTABLE
        const size = whole?.btf?.size ?? 0
        return await sendBtf(context, request, reply, wanted, { cacheControl, size, have })
      },
    )

    app.get(
      '/v1/btf/:distro/:version/:arch/:release/vmlinux.h',
      {
        config: { crossOrigin: true },
        preHandler,
        schema: {
          tags: ['BTF'],
          summary: "A kernel's types as a C header",
          description:
            'All types, and the prototypes of kfuncs, as `bpftool btf dump … format c` prints them.',
          params: NameParams,
          querystring: HeaderQuery,
          response: {
            ...bodies('the header; its ETag is the SHA-256 of its bytes', HEADER_TYPE),
            ...problems(...ERRORS, 'invalid_name', ...NO_BTF),
          },
        },
      },
      async (request, reply) => {
        const { query } = request
        const kernel = kernelOf(request.params)
        const choice = choiceOf(query)
        const record = await resolveBtf(context, request, kernel, choice)
        const wanted = { ...wantedOf(record, query), header: true } as const
        return await sendBtf(context, request, reply, wanted, {
          cacheControl: SHORT,
          headers: foundHeaders(kernel, choice, record),
        })
      },
    )

    app.get(
      '/v1/btf/:distro/:version/:arch/:release/sha256',
      {
        config: { crossOrigin: true },
        schema: {
          tags: ['BTF'],
          summary: "The SHA-256 of a kernel's BTF, as a line that `sha256sum` reads",
          description:
            'For clients that cannot read headers. `/v1/btf/sha256/:digest` has the bytes.',
          params: NameParams,
          querystring: ChoiceQuery,
          response: {
            200: text('`<sha256>  <release>.btf`'),
            ...problems('invalid_request', 'invalid_name', ...NO_BTF, 'unavailable'),
          },
        },
      },
      async (request, reply) => {
        const kernel = kernelOf(request.params)
        const choice = choiceOf(request.query)
        const allowed = request.query.partial === 'allow'
        const { record, partial } = await resolveWithPartial(
          context,
          request,
          kernel,
          choice,
          allowed,
        )
        return reply
          .headers({
            ...foundHeaders(kernel, choice, record),
            ...(partial && partialHeaders(record)),
          })
          .header('cache-control', SHORT)
          .type('text/plain; charset=utf-8')
          .send(`${record.btf.sha256}  ${record.kernel.release}.btf\n`)
      },
    )
  }
