/*
 * /v1/minimize: of a kernel's BTF what some objects need. For one kernel the BTF itself; for all that match a line of JSON
 * each, for who wants them apart: an archive of them is a bundle.
 */

import Type from 'typebox'
import { BTF_TYPE } from '../cache/btf-bodies.ts'
import { bytes, lines, Sha256 } from '../http/schema.ts'
import { sendMade } from '../http/send.ts'
import { lineOf } from '../json.ts'
import { objectRoutes, Refused } from './for-kernels.ts'

const Line = Type.Object({
  kernel: Type.String({ description: '`DISTRO/VERSION/ARCH/RELEASE`' }),
  build: Type.Optional(
    Type.String({ description: 'the version of its package, where builds of the kernel differ' }),
  ),
  sha256: Type.Optional(Sha256),
  size: Type.Optional(Type.Integer({ description: 'bytes' })),
  of: Type.Optional(Type.Integer({ description: 'bytes of the whole' })),
  btf: Type.Optional(Type.String({ contentEncoding: 'base64' })),
  error: Type.Optional(Refused),
})

export const minimizeRoutes = objectRoutes({
  path: '/v1/minimize',
  summary: "Of a kernel's BTF, or of all that match, what BPF objects need",
  description:
    'For `kernel` or `digest` the answer is BTF; for all that match, lines of JSON. For an archive of many see `/v1/bundles`.',
  answer: {
    description: "raw BTF; its ETag is the bytes' SHA-256. Or for each kernel a line",
    content: { ...bytes('', BTF_TYPE).content, ...lines('', Line).content },
  },
  one: async ({ objects }, { objects: sent, target, gone, lane }, request, reply) =>
    await sendMade(request, reply, await objects.minimized(lane, target.sha256, sent, gone)),
  many: async ({ objects }, { objects: sent, target, gone, lane }, attempt) => {
    const minimize = async () => {
      const { bytes, sha256 } = await objects.minimized(lane, target.sha256, sent, gone)
      const btf = bytes.toString('base64')
      return JSON.stringify({ sha256, size: bytes.length, of: target.size, btf })
    }
    const { name: kernel, build } = target
    return lineOf({ kernel, build }, await attempt('all', minimize))
  },
})
