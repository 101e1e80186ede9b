/*
 * /coolbpf/btf: the routes of OpenAnolis' BTF mirror for coolbpf, which ptcpdump and kyanos request first. A file is named
 * after the architecture and `uname -r` alone. SysOM's buckets have the same files below /home/hive/btf, where
 * LoongCollector looks first (alibaba/loongcollector, loongcollector.sh `check_or_prepare_vmlinux`), as does SysAK.
 */

import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import Type from 'typebox'
import { ANY } from '../../storage/index.ts'
import { SHORT } from '../cache/btf-bodies.ts'
import { ServiceError } from '../error.ts'
import type { Context } from '../http/context.ts'
import { forDropIn, resolveBtf } from '../http/resolve.ts'
import {
  bodies,
  ChoiceQuery,
  choiceOf,
  foundHeaders,
  NO_BTF_FOR_OTHERS,
  problems,
} from '../http/schema.ts'
import { sendBtf, sendFromCache } from '../http/send.ts'
import { kernelOf, Segment } from '../kernel/name.ts'
import { MOUNTS } from './btfhub.ts'

/** Directories of the files, by architecture. */
const DIRECTORIES = ['/coolbpf/btf', '/home/hive/btf']
const PREFIX = 'vmlinux-'
const ADDRESSES = DIRECTORIES.flatMap((directory) =>
  MOUNTS.map((mount) => [directory, mount] as const),
)

const FileParams = Type.Object({
  arch: Segment,
  file: Type.String({
    minLength: 1,
    maxLength: 300,
    description: `\`${PREFIX}\`, then \`uname -r\``,
  }),
})

export const openAnolisRoutes =
  (context: Context): FastifyPluginAsyncTypebox =>
  async (app) => {
    for (const [directory, { prefix, newest }] of ADDRESSES) {
      app.get(
        `${prefix}${directory}/:arch/:file`,
        {
          preHandler: sendFromCache(context),
          schema: {
            hide: newest,
            tags: ['Drop-ins'],
            summary: "A kernel's BTF, as OpenAnolis and SysOM serve it",
            params: FileParams,
            querystring: ChoiceQuery,
            response: {
              ...bodies('raw BTF'),
              ...problems(
                'invalid_request',
                'invalid_name',
                'not_found',
                'unknown_blob',
                ...NO_BTF_FOR_OTHERS,
                'invalid_range',
                'unavailable',
              ),
            },
          },
        },
        async (request, reply) => {
          const { arch, file } = request.params
          if (!file.startsWith(PREFIX) || file === PREFIX)
            throw new ServiceError(
              'not_found',
              `no file ${JSON.stringify(file)}: expected ${PREFIX}, then a release`,
            )
          const release = file.slice(PREFIX.length)
          const kernel = kernelOf({ distro: ANY, version: ANY, arch, release })
          const asked = choiceOf(request.query)
          const choice = { ...asked, newest: newest || asked.newest === true }
          const record = await forDropIn(resolveBtf(context, request, kernel, choice))
          const { sha256 } = record.btf
          const headers = foundHeaders(kernel, choice, record)
          return await sendBtf(
            context,
            request,
            reply,
            { sha256 },
            { cacheControl: SHORT, headers },
          )
        },
      )
    }
  }
