/*
 * What a browser asks for that checks an object itself: the modules of the library, the kernels of a choice, and what the
 * check needs of each besides its BTF.
 */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import Type from 'typebox'
import { IMMUTABLE } from '../cache/btf-bodies.ts'
import { ServiceError } from '../error.ts'
import type { Context } from '../http/context.ts'
import { sendJson } from '../http/json.ts'
import { Sha256 } from '../http/schema.ts'
import { sendEncoded } from '../http/send.ts'
import { sendErrorPage } from '../http/send-page.ts'
import { kernelOf, NameParams } from '../kernel/name.ts'
import { selectTargets } from '../kernel/targets.ts'
import { functionsIn } from '../objects/functions.ts'
import { browserModules } from '../page/browser-modules.ts'
import { LOCAL_PATHS } from '../page/local-check.ts'
import { chosenNames, localKernels } from '../page/local-kernels.ts'

/** A worker's policy is that of its own response: it loads modules and reads from this service, and nothing else. */
const MODULE_POLICY = "default-src 'none';script-src 'self';connect-src 'self'"

const ChoiceParams = Type.Object({
  newest: Type.Optional(Type.Boolean()),
  distro: Type.Optional(Type.String({ maxLength: 255 })),
  series: Type.Optional(Type.String({ maxLength: 1024 })),
})

const hide = true

export const localCheckRoutes =
  (context: Context): FastifyPluginAsyncTypebox =>
  async (app) => {
    const { catalog, kernelTable, store } = context
    app.setErrorHandler(sendErrorPage)

    app.get(
      '/assets/:modules/*',
      { schema: { hide, params: Type.Object({ modules: Type.String(), '*': Type.String() }) } },
      (request, reply) => {
        const { modules, '*': path } = request.params
        const asset = browserModules().find(`/assets/${modules}/${path}`)
        if (!asset)
          throw new ServiceError('not_found', 'there is no such file; load the page again')
        const { bytes, type, sha256 } = asset
        return sendEncoded(request, reply, bytes, {
          etag: sha256,
          cacheControl: IMMUTABLE,
          type,
          headers: { 'content-security-policy': MODULE_POLICY },
        })
      },
    )

    app.get('/check/kernels', { schema: { hide, querystring: ChoiceParams } }, (request, reply) => {
      const { distro } = request.query
      const table = kernelTable()
      const targets = selectTargets(catalog, distro === undefined ? {} : { distro })
      return sendJson(
        request,
        reply,
        localKernels(table, targets, chosenNames(table, request.query)),
      )
    })

    app.get(
      `${LOCAL_PATHS.modules}/:distro/:version/:arch/:release`,
      { schema: { hide, params: NameParams, querystring: Type.Object({ sha256: Sha256 }) } },
      (request, reply) => {
        const targets = selectTargets(catalog, kernelOf(request.params))
        const target = targets.find(({ btf }) => btf.sha256 === request.query.sha256)
        return sendJson(request, reply, target?.modules.map(({ sha256 }) => sha256) ?? [])
      },
    )

    app.get(
      `${LOCAL_PATHS.functions}/:digest`,
      { schema: { hide, params: Type.Object({ digest: Sha256 }) } },
      async (request, reply) => {
        const { digest: sha256 } = request.params
        const names = await functionsIn(store, { sha256 })
        if (!names) throw new ServiceError('not_found', `there are no functions ${sha256}`)
        return sendEncoded(request, reply, names, {
          etag: sha256,
          cacheControl: IMMUTABLE,
          type: 'application/octet-stream',
        })
      },
    )
  }
