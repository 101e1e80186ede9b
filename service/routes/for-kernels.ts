/*
 * Requests that apply BPF objects to kernels: to one kernel, by its name or by the digest of its BTF, or to all kernels
 * that match, as lines of JSON. For many kernels the work stays only a few kernels ahead of what the client has read. An
 * error of one kernel is reported in its line. Objects that were too complex for one kernel are not tried on the next.
 */
import { Readable } from 'node:stream'
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyReply, FastifyRequest } from 'fastify'
import Type from 'typebox'
import { type Catalog, type KernelName, mapOrdered, StoreError } from '../../storage/index.ts'
import { isDamaged } from '../bundle/member.ts'
import { Quota } from '../concurrency.ts'
import { ServiceError } from '../error.ts'
import type { Context } from '../http/context.ts'
import { disconnectSignal } from '../http/requester.ts'
import { resolveBtf } from '../http/resolve.ts'
import { ChoiceQuery, choiceOf, NDJSON, NO_BTF, problems, Sha256 } from '../http/schema.ts'
import { acceptUploads, bodyLimitOf, OBJECTS, objectLimits, objectsOf } from '../http/upload.ts'
import { type JsonText, jsonOf } from '../json.ts'
import { FilterQuery, filterOf } from '../kernel/filter.ts'
import { moduleDigests } from '../kernel/lookup.ts'
import { kernelOf, nameOf, parseName } from '../kernel/name.ts'
import { selectTargets } from '../kernel/targets.ts'
import type { Priority, SentObject } from '../objects/results.ts'

const TargetQuery = Type.Object({
  kernel: Type.Optional(
    Type.String({
      maxLength: 1024,
      description:
        'one kernel, `DISTRO/VERSION/ARCH/RELEASE`; without it and `digest`, all kernels that match the filters',
    }),
  ),
  ...ChoiceQuery.properties,
  digest: Type.Optional(
    Type.Unsafe<string>({ ...Sha256, description: 'one BTF, by the SHA-256 of its bytes' }),
  ),
  ...FilterQuery.properties,
})
type TargetQuery = Type.Static<typeof TargetQuery>

const ERRORS = [
  'invalid_request',
  'invalid_name',
  'unknown_blob',
  'unavailable',
  ...NO_BTF,
  'too_large',
  'unsupported_media_type',
  'invalid_object',
  'too_complex',
] as const

/** The BTF that objects are applied to. */
interface TargetBtf {
  /** DISTRO/VERSION/ARCH/RELEASE, or the digest */
  name: string
  /** the package version, if the kernel has several builds with different BTF */
  build?: string
  sha256: string
  /** digests of the BTF of its modules, which may have types that the objects need */
  modules: readonly string[]
  /** bytes */
  size?: number
}

/** Objects, and the BTF that they are applied to. */
export interface ObjectTask {
  objects: readonly SentObject[]
  target: TargetBtf
  priority: Priority
  /** aborts when the client disconnects */
  signal: AbortSignal
}

/** A route that takes BPF objects. */
export interface ObjectEndpoint {
  path: string
  summary: string
  description?: string
  /** the schema of a 200 response */
  response: object
  /** Sends the response for one BTF. */
  sendOne(task: ObjectTask, request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply>
  /** The lines of JSON for one of many kernels; `attempt` runs the work. */
  linesFor(task: ObjectTask, attempt: TaskAttempt): Promise<string>
}

/** Registers a route that takes BPF objects and applies them to one kernel, or to all that match. */
export async function registerObjectRoute(
  app: Parameters<FastifyPluginAsyncTypebox>[0],
  context: Context,
  endpoint: ObjectEndpoint,
): Promise<void> {
  const { settings, uploadQuota, catalog } = context
  const bulkRequests = new Quota(
    settings.bulkRequests,
    'too many requests for many kernels are running; retry later',
  )
  const limits = objectLimits(settings.uploadLimit)
  await acceptUploads(app, uploadQuota, limits)

  app.post(
    endpoint.path,
    {
      bodyLimit: bodyLimitOf(limits),
      schema: {
        tags: ['Objects'],
        summary: endpoint.summary,
        ...(endpoint.description && { description: endpoint.description }),
        consumes: ['multipart/form-data'],
        form: OBJECTS,
        querystring: TargetQuery,
        response: { 200: endpoint.response, ...problems(...ERRORS) },
      },
    },
    async (request, reply) => {
      const signal = disconnectSignal(reply)
      const { interactive, bulk, width } = context.objects
      const objects = await context.objects.open(await objectsOf(request, limits), signal)
      const target = await singleTarget(context, request, request.query)
      reply.header('cache-control', 'no-store')
      if (target)
        return await endpoint.sendOne(
          { objects, target, priority: interactive, signal },
          request,
          reply,
        )
      reply.raw.once('close', bulkRequests.take())
      const targets = matchingTargets(catalog, request.query)
      const attempt = untilTooComplex()
      const lines = mapOrdered(targets, width, (target) =>
        endpoint.linesFor({ objects, target, priority: bulk, signal }, attempt),
      )
      return reply.type(NDJSON).send(Readable.from(lines))
    },
  )
}

/**
 * The one BTF that a request names; undefined if it asks for all kernels that match. Errors: `invalid_request`,
 * `invalid_name`; those of `resolveBtf`.
 */
async function singleTarget(
  context: Context,
  request: FastifyRequest,
  query: TargetQuery,
): Promise<TargetBtf | undefined> {
  const { kernel: text, digest: sha256, build, 'uname-version': unameVersion, ambiguous } = query
  const filtered = Object.keys(filterOf(query)).length > 0
  if (Number(text !== undefined) + Number(sha256 !== undefined) + Number(filtered) > 1)
    throw new ServiceError(
      'invalid_request',
      'conflicting parameters: give only one of kernel, digest, or filters',
    )
  if (text === undefined && (build ?? unameVersion ?? ambiguous) !== undefined)
    throw new ServiceError(
      'invalid_request',
      'build, uname-version and ambiguous need the parameter kernel',
    )
  if (sha256 !== undefined) return { name: sha256, sha256, modules: [] }
  if (text === undefined) return undefined
  const name = kernelIn(text)
  const record = await resolveBtf(context, request, name, choiceOf(query))
  const { kernel, btf } = record
  return { name: nameOf(kernel), sha256: btf.sha256, modules: moduleDigests(record) }
}

/** Errors: `invalid_name`. */
function kernelIn(text: string): KernelName {
  try {
    const name = parseName(text)
    if (name) return kernelOf(name)
  } catch (error) {
    if (!(error instanceof StoreError)) throw error
  }
  throw new ServiceError(
    'invalid_name',
    `invalid kernel ${JSON.stringify(text.slice(0, 100))}: expected DISTRO/VERSION/ARCH/RELEASE`,
  )
}

/** All kernels with BTF that match, ordered by name. Errors: `unknown_kernel`. */
function matchingTargets(catalog: Catalog, query: TargetQuery): TargetBtf[] {
  const all = [...selectTargets(catalog, filterOf(query))]
  if (all.length === 0) throw new ServiceError('unknown_kernel', 'no kernel with BTF matches')
  return all.map(({ btf: { sha256, size }, modules, ...rest }) => ({
    ...rest,
    sha256,
    size,
    modules: modules.map((module) => module.sha256),
  }))
}

/** The schema of an error in a line. */
export const LineError = Type.Object(
  { code: Type.String(), message: Type.String() },
  { description: 'why there is no result for this kernel' },
)

/** Runs work under a key; its result, or a line's error, is JSON. */
export type TaskAttempt = (key: string, work: () => Promise<JsonText>) => Promise<JsonText>

/** Runs the work as it is. Errors: those of the work. */
export const attemptOnce: TaskAttempt = (_, work) => work()

/**
 * Runs work until a key was too complex once; later work under that key fails at once. That error and those of a single
 * kernel become JSON. Errors: all others of the work.
 */
export function untilTooComplex(): TaskAttempt {
  const tooComplex = new Map<string, ServiceError>()
  return async (key, work) => {
    try {
      const before = tooComplex.get(key)
      if (before) throw before
      return await work()
    } catch (error) {
      if (error instanceof ServiceError && error.code === 'too_complex') tooComplex.set(key, error)
      else if (!isDamaged(error)) throw error
      const { code, message } = error
      return jsonOf({ error: { code, message } })
    }
  }
}
