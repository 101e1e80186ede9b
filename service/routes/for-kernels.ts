/*
 * Objects on the kernels that a request is about: on one, by its name or by the digest of its BTF, or on all that match,
 * as lines of JSON, while only so many are worked on ahead of what the client takes. What is wrong with one kernel
 * stands in its line; objects that are too much for us on one are not tried on the next.
 */
import { Readable } from 'node:stream'
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyReply, FastifyRequest } from 'fastify'
import Type from 'typebox'
import { type Catalog, type KernelName, StoreError } from '../../storage/index.ts'
import { isDamaged } from '../bundle/member.ts'
import { mapOrdered, Quota } from '../concurrency.ts'
import { ServiceError } from '../error.ts'
import type { Context } from '../http/context.ts'
import { disconnectSignal } from '../http/requester.ts'
import { resolveBtf } from '../http/resolve.ts'
import { ChoiceQuery, choiceOf, NDJSON, NO_BTF, problems, Sha256 } from '../http/schema.ts'
import { acceptUploads, bodyLimitOf, OBJECTS, objectLimits, objectsOf } from '../http/upload.ts'
import { FilterQuery, filterOf } from '../kernel/filter.ts'
import { kernelOf, nameOf, parseName } from '../kernel/name.ts'
import { selectTargets } from '../kernel/targets.ts'
import type { Priority, SentObject } from '../objects/results.ts'

const ChosenQuery = Type.Object(
  {
    kernel: Type.Optional(
      Type.String({
        maxLength: 1024,
        description:
          'one kernel, `DISTRO/VERSION/ARCH/RELEASE`; without it and `digest` all that match',
      }),
    ),
    ...ChoiceQuery.properties,
    digest: Type.Optional(
      Type.Unsafe<string>({ ...Sha256, description: 'one BTF, by its SHA-256' }),
    ),
    ...FilterQuery.properties,
  },
  { additionalProperties: false },
)
type ChosenQuery = Type.Static<typeof ChosenQuery>

const REFUSALS = [
  ...(['invalid_request', 'invalid_name', 'unknown_blob', 'unavailable', ...NO_BTF] as const),
  ...(['too_large', 'unsupported_media_type', 'invalid_object', 'too_complex'] as const),
] as const

/** BTF that objects are worked on for. */
interface TargetBtf {
  /** DISTRO/VERSION/ARCH/RELEASE, or the digest */
  name: string
  /** the version of its package, where the kernel has several builds with different BTF */
  build?: string
  sha256: string
  /** bytes */
  size?: number
}

/**
 * The one BTF that a request is about; undefined where it is about that of many kernels. Errors: `invalid_request`,
 * `invalid_name`, those of `answerFor`.
 */
async function theOne(
  context: Context,
  request: FastifyRequest,
  query: ChosenQuery,
): Promise<TargetBtf | undefined> {
  const { kernel: text, digest: sha256, build, 'uname-version': unameVersion, ambiguous } = query
  const filters = Object.keys(filterOf(query)).length > 0
  if (Number(text !== undefined) + Number(sha256 !== undefined) + Number(filters) > 1)
    throw new ServiceError('invalid_request', 'give one of these: kernel, digest, filters')
  if (text === undefined && (build ?? unameVersion ?? ambiguous) !== undefined)
    throw new ServiceError('invalid_request', 'build, uname-version and ambiguous go with kernel')
  if (sha256 !== undefined) return { name: sha256, sha256 }
  if (text === undefined) return undefined
  const name = named(text)
  const { kernel, btf } = await resolveBtf(context, request, name, choiceOf(query))
  return { name: nameOf(kernel), sha256: btf.sha256 }
}

/** Errors: `invalid_name`. */
function named(text: string): KernelName {
  try {
    const name = parseName(text)
    if (name) return kernelOf(name)
  } catch (error) {
    if (!(error instanceof StoreError)) throw error
  }
  throw new ServiceError('invalid_name', 'a kernel is DISTRO/VERSION/ARCH/RELEASE')
}

export const Refused = Type.Object(
  { code: Type.String(), message: Type.String() },
  { description: 'why there is no answer for this kernel' },
)

/** Tries work on something, and gives what it says, as JSON. */
export type TaskAttempt = (what: string, work: () => Promise<string>) => Promise<string>

/** Errors: those of the work. */
export const justOnce: TaskAttempt = (_, work) => work()

/**
 * Tries until it is once too much for us; that, and what is wrong with a kernel, it says as JSON. Errors: all others of the
 * work.
 */
export function untilTooComplex(): TaskAttempt {
  const over = new Map<string, ServiceError>()
  return async (what, work) => {
    try {
      const before = over.get(what)
      if (before) throw before
      return await work()
    } catch (error) {
      const tooComplex = error instanceof ServiceError && error.code === 'too_complex'
      if (tooComplex) over.set(what, error)
      else if (!isDamaged(error)) throw error
      const { code, message } = error
      return JSON.stringify({ error: { code, message } })
    }
  }
}

/** What is to be found out of objects. */
interface ObjectEndpoint {
  path: string
  summary: string
  description?: string
  /** the schema of an answer */
  answer: object
  /** Answers for one BTF. */
  one(
    context: Context,
    trial: ObjectTask,
    request: FastifyRequest,
    reply: FastifyReply,
  ): Promise<FastifyReply>
  /** The lines for one of many. */
  many(context: Context, trial: ObjectTask, attempt: TaskAttempt): Promise<string>
}

/** Objects and the BTF that they are tried on. */
export interface ObjectTask {
  objects: readonly SentObject[]
  target: TargetBtf
  lane: Priority
  gone: AbortSignal
}

/** The route at which one may have that found out. */
export const objectRoutes =
  ({ path, one, many, answer, summary, description }: ObjectEndpoint) =>
  (context: Context): FastifyPluginAsyncTypebox =>
  async (app) => {
    const { settings, uploadQuota, catalog } = context
    const { one: quick, many: patient, width } = context.objects
    const room = new Quota(settings.bulkRequests, 'so much is asked of many kernels already')
    const limits = objectLimits(settings.uploadLimit)
    await acceptUploads(app, uploadQuota, limits)

    app.post(
      path,
      {
        bodyLimit: bodyLimitOf(limits),
        schema: {
          ...{ tags: ['Objects'], summary, ...(description && { description }) },
          consumes: ['multipart/form-data'],
          form: OBJECTS,
          querystring: ChosenQuery,
          response: { 200: answer, ...problems(...REFUSALS) },
        },
      },
      async (request, reply) => {
        const gone = disconnectSignal(reply)
        const { query } = request
        const objects = await context.objects.open(await objectsOf(request, limits), gone)
        const target = await theOne(context, request, query)
        reply.header('cache-control', 'no-store')
        if (target)
          return await one(context, { objects, target, lane: quick, gone }, request, reply)
        reply.raw.once('close', room.take())
        const targets = allOf(catalog, query)
        const attempt = untilTooComplex()
        const lines = mapOrdered(targets, width, (target) =>
          many(context, { objects, target, lane: patient, gone }, attempt),
        )
        return reply.type(NDJSON).send(Readable.from(lines))
      },
    )
  }

/** All that match, in order of their names. Errors: `unknown_kernel`. */
function allOf(catalog: Catalog, query: ChosenQuery): TargetBtf[] {
  const all = [...selectTargets(catalog, filterOf(query))]
  if (all.length === 0) throw new ServiceError('unknown_kernel', 'no kernel with BTF matches')
  return all.map(({ btf: { sha256, size }, ...rest }) => ({ ...rest, sha256, size }))
}
