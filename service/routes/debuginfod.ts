/*
 * /buildid/<build-id>/section/.BTF: debuginfod's route for a section of a file (debuginfod(8), WEBAPI). With it the clients
 * of elfutils find BTF by the build-id of their kernel.
 */

import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import Type from 'typebox'
import { IMMUTABLE } from '../cache/btf-bodies.ts'
import type { Context } from '../http/context.ts'
import { forDropIn, resolveBuild } from '../http/resolve.ts'
import { BuildId, bodies, KERNEL_HEADER, NO_BTF_FOR_OTHERS, problems } from '../http/schema.ts'
import { sendBtf, sendFromCache } from '../http/send.ts'
import { nameOf } from '../kernel/name.ts'

export const debuginfodRoutes =
  (context: Context): FastifyPluginAsyncTypebox =>
  async (app) => {
    app.get(
      '/buildid/:buildId/section/.BTF',
      {
        preHandler: sendFromCache(context),
        schema: {
          tags: ['Drop-ins'],
          summary: "A kernel's BTF, as debuginfod serves a section of a file",
          params: Type.Object({ buildId: BuildId }),
          response: {
            ...bodies('raw BTF; its size is in `x-debuginfod-size`'),
            ...problems(
              'invalid_request',
              ...NO_BTF_FOR_OTHERS,
              'unknown_blob',
              'invalid_range',
              'unavailable',
            ),
          },
        },
      },
      async (request, reply) => {
        const { buildId } = request.params
        const { btf, kernel } = await forDropIn(resolveBuild(context, request, buildId))
        const { sha256, size } = btf
        return await sendBtf(
          context,
          request,
          reply,
          { sha256 },
          {
            cacheControl: IMMUTABLE,
            headers: { 'x-debuginfod-size': String(size), [KERNEL_HEADER]: nameOf(kernel) },
          },
        )
      },
    )
  }
