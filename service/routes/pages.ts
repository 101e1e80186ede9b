/*
 * The pages for people: /, /kernels, /search, and their files below /assets. Other pages are in page-types.ts,
 * page-check.ts and page-status.ts.
 */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import Type from 'typebox'
import { sha256Of } from '../../storage/index.ts'
import { IMMUTABLE, SHORT } from '../cache/btf-bodies.ts'
import { ServiceError } from '../error.ts'
import type { Context } from '../http/context.ts'
import { sendBytes } from '../http/send.ts'
import { sendErrorPage, sendPage } from '../http/send-page.ts'
import { kernelOf, NameParams, nameOf } from '../kernel/name.ts'
import { ASSETS } from '../page/assets.ts'
import { homePage } from '../page/home-page.ts'
import { kernelPage } from '../page/kernel-page.ts'
import { FACETS, kernelsPage } from '../page/kernels-page.ts'

const Word = Type.Optional(Type.String({ maxLength: 255 }))

const KernelsQuery = Type.Object({
  ...Object.fromEntries(FACETS.map((facet) => [facet, Word])),
  release: Word,
  after: Type.Optional(Type.String({ maxLength: 1024 })),
})

/** Pages are not in the document of the API. */
const hide = true

export const pageRoutes =
  (context: Context): FastifyPluginAsyncTypebox =>
  async (app) => {
    const { kernelTable } = context
    app.setErrorHandler(sendErrorPage)

    app.get('/', { schema: { hide } }, (request, reply) =>
      sendPage(request, reply, homePage(kernelTable())),
    )

    app.get('/kernels', { schema: { hide, querystring: KernelsQuery } }, (request, reply) => {
      const chosen = Object.entries(request.query).filter(([, value]) => value !== '')
      return sendPage(request, reply, kernelsPage(kernelTable(), Object.fromEntries(chosen)))
    })

    app.get(
      '/kernels/:distro/:version/:arch/:release',
      { schema: { hide, params: NameParams } },
      async (request, reply) => {
        const kernel = kernelOf(request.params)
        const page = kernelPage(kernelTable(), nameOf(kernel))
        if (!page) {
          const { distro, version, arch, release } = kernel
          const links = [
            { href: `/search?q=${encodeURIComponent(release)}`, text: 'Search for this release' },
            { href: '/kernels', text: 'All kernels' },
            { href: '/status', text: 'What was asked for and is not there' },
          ]
          throw new ServiceError(
            'unknown_kernel',
            `there is no record of ${distro} ${version} ${arch} ${release}`,
            { details: { links } },
          )
        }
        return await sendPage(request, reply, page)
      },
    )

    const assets = new Map(Object.values(ASSETS).map((asset) => [asset.path, asset]))
    app.get(
      '/assets/:file',
      { schema: { hide, params: Type.Object({ file: Type.String({ maxLength: 64 }) }) } },
      (request, reply) => {
        const asset = assets.get(`/assets/${request.params.file}`)
        if (!asset)
          throw new ServiceError('not_found', 'there is no such file; load the page again')
        const { bytes, type, sha256 } = asset
        return sendBytes(request, reply, bytes, {
          etag: `"${sha256}"`,
          cacheControl: IMMUTABLE,
          type,
        })
      },
    )

    app.get('/btf-fetch', { schema: { hide } }, async (request, reply) => {
      const bytes = await fetchScript()
      return sendBytes(request, reply, bytes, {
        etag: `"${sha256Of(bytes)}"`,
        cacheControl: SHORT,
        type: 'text/plain; charset=utf-8',
      })
    })
  }

let script: Promise<Buffer> | undefined

/** bpf/example/btf-fetch: beside the sources in a checkout, beside dist/ in the published package. */
function fetchScript(): Promise<Buffer> {
  const at = (root: string) =>
    readFile(join(import.meta.dirname, root, 'bpf', 'example', 'btf-fetch'))
  script ??= at('../..').catch(() => at('../../..'))
  return script
}
