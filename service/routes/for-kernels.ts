/*
 * Requests that apply BPF objects to kernels: to one kernel, by its name or by the digest of its BTF, or to all kernels
 * that match, as lines of JSON. For many kernels the work stays only a few lines ahead of what the client has read, and
 * a line has a maximum length, so a slow reader costs a bounded amount of memory. An answer for one kernel is complete
 * before it is sent; a quota counts its bytes until the client has them. The lines of one answer are bounded in total: the
 * last line tells how many results are missing.
 *
 * An error of one kernel is reported in its line. Objects that were too complex for one kernel are not tried on the next.
 */
import { Readable } from 'node:stream'
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyReply, FastifyRequest } from 'fastify'
import Type, { type TProperties } from 'typebox'
import type { Dialect } from '../../bpf/index.ts'
import {
  type Catalog,
  type KernelName,
  mapOrdered,
  StoreError,
  withPartial,
} from '../../storage/index.ts'
import { isDamaged } from '../bundle/member.ts'
import type { QuotaLease } from '../concurrency.ts'
import { ServiceError } from '../error.ts'
import type { Context } from '../http/context.ts'
import { takePlace } from '../http/place.ts'
import { callerOf, disconnectSignal } from '../http/requester.ts'
import { resolveWithPartial } from '../http/resolve.ts'
import { ChoiceQuery, choiceOf, NDJSON, NO_BTF, problems, Sha256 } from '../http/schema.ts'
import { acceptUploads, bodyLimitOf, OBJECTS, objectLimits, objectsOf } from '../http/upload.ts'
import { type JsonText, jsonOf } from '../json.ts'
import { FilterQuery, filterOf } from '../kernel/filter.ts'
import { factsOf, type KernelFacts, moduleDigests } from '../kernel/lookup.ts'
import { kernelOf, nameOf, parseName } from '../kernel/name.ts'
import { requireMatches } from '../kernel/named.ts'
import { selectTargets } from '../kernel/targets.ts'
import type { Priority, SentObject, Sharing } from '../objects/results.ts'
import { formatSize } from '../size.ts'

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
  /** the names of its functions, where they are known */
  symbols?: { readonly sha256: string } | undefined
  facts?: KernelFacts
  /** bytes */
  size?: number
  /** it is partial BTF, in the store of such */
  partial?: boolean
}

/** Objects, and the BTF that they are applied to. */
export interface ObjectTask {
  objects: readonly SentObject[]
  target: TargetBtf
  priority: Priority
  /** the form of the BTF to make, on routes whose query has it */
  dialect?: Dialect | undefined
  /** aborts when the client disconnects */
  signal: AbortSignal
  /** for requests that cover many kernels, which may share results */
  sharing?: Sharing | undefined
}

/** A task for one BTF, whose answer is complete before it is sent. */
export interface SingleTask extends ObjectTask {
  /** counts the bytes of the answer until the client has them */
  answer: QuotaLease
}

/** A route that takes BPF objects. */
export interface ObjectEndpoint {
  path: string
  summary: string
  description?: string
  /** the schema of a 200 response */
  response: object
  /** further query parameters */
  query?: TProperties
  /** what these say about every kernel */
  factsIn?(query: Readonly<Record<string, unknown>>): KernelFacts
  /** Sends the response for one BTF. */
  sendOne(task: SingleTask, request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply>
  /** whether it works with partial BTF */
  takesPartial?: boolean
  /** whether each object has a line of its own, or all objects together have one for each kernel */
  lineFor: 'each object' | 'all objects'
  /** The line of JSON for one of many kernels, a few megabytes at most; `attempt` runs the work. */
  line(task: ObjectTask, attempt: TaskAttempt): Promise<Buffer>
}

/** Registers a route that takes BPF objects and applies them to one kernel, or to all that match. */
export async function registerObjectRoute(
  app: Parameters<FastifyPluginAsyncTypebox>[0],
  context: Context,
  endpoint: ObjectEndpoint,
): Promise<void> {
  const { settings, catalog, answers, bulkRequests } = context
  const limits = objectLimits(settings.uploadLimit)
  await acceptUploads(app, context, limits)

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
        querystring: Type.Object({ ...TargetQuery.properties, ...endpoint.query }),
        response: { 200: endpoint.response, ...problems(...ERRORS) },
      },
    },
    async (request, reply) => {
      const signal = disconnectSignal(reply)
      const { interactive, bulk, width } = context.objects
      const objects = await context.objects.open(await objectsOf(request, limits), signal)
      const query = request.query as TargetQuery & { dialect?: Dialect }
      const { dialect } = query
      const allowed = query.partial === 'allow'
      if (allowed && !endpoint.takesPartial) throw partialNotMinimized()
      const given = endpoint.factsIn?.(request.query) ?? {}
      const single = await singleTarget(context, request, query)
      const target = single && withFacts(single, given)
      reply.header('cache-control', 'no-store')
      if (target) {
        const answer = answers.lease(callerOf(request))
        reply.raw.once('close', () => answer.end())
        const priority = target.partial ? context.partial.objects.interactive : interactive
        const task = { objects, target, priority, dialect, signal, answer }
        return await endpoint.sendOne(task, request, reply)
      }
      takePlace(bulkRequests, request, reply, settings.idleTimeout)
      const kernels = allowed
        ? withPartial(catalog, context.partial.catalog, filterOf(query))
        : catalog
      const targets = matchingTargets(kernels, query).map((one) => withFacts(one, given))
      const groups = endpoint.lineFor === 'each object' ? objects.map((one) => [one]) : [objects]
      const attempt = untilTooComplex()
      const sharing = context.objects.sharing()
      const lines = mapOrdered(tasksOf(targets, groups), width, (task) => {
        const { partial } = task.target
        const priority = partial ? context.partial.objects.bulk : bulk
        const own = { ...task, priority, dialect, signal }
        return endpoint.line(partial ? own : { ...own, sharing }, attempt)
      })
      const bounded = cutLines(lines, settings.answerLimit, targets.length * groups.length)
      return reply.type(NDJSON).send(Readable.from(bounded))
    },
  )
}

/** Errors of routes that make BTF of a kernel's. */
export const partialNotMinimized = (): ServiceError =>
  new ServiceError(
    'invalid_request',
    'partial BTF cannot be minimized: what it lacks would look as if the kernel lacked it',
  )

const withFacts = (target: TargetBtf, given: KernelFacts): TargetBtf => ({
  ...target,
  facts: { ...target.facts, ...given },
})

/** Every group of objects for every kernel, ordered by kernel. */
function* tasksOf(
  targets: readonly TargetBtf[],
  groups: readonly (readonly SentObject[])[],
): Generator<Pick<ObjectTask, 'objects' | 'target'>> {
  for (const target of targets) for (const objects of groups) yield { objects, target }
}

/** Yields lines up to `limit` bytes, then a `CutLine` in place of those that are left of `count`. */
export async function* cutLines(
  lines: AsyncIterable<Buffer>,
  limit: number,
  count: number,
): AsyncGenerator<Buffer> {
  let [left, missing] = [limit, count]
  for await (const line of lines) {
    left -= line.length
    if (left < 0) {
      const results = missing === 1 ? '1 result is missing' : `${missing} results are missing`
      const message = `the answer is cut at its limit of ${formatSize(limit)}: ${results}; ask for fewer kernels or objects at once`
      yield Buffer.from(`${jsonOf({ error: { code: 'too_large', message }, missing })}\n`)
      return
    }
    missing--
    yield line
  }
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
  const { like, codename } = query
  const filtered = Object.keys(filterOf(query)).length > 0
  if (Number(text !== undefined) + Number(sha256 !== undefined) + Number(filtered) > 1)
    throw new ServiceError(
      'invalid_request',
      'conflicting parameters: give only one of kernel, digest, or filters',
    )
  const needing = build ?? unameVersion ?? ambiguous ?? like ?? codename
  if (text === undefined && needing !== undefined)
    throw new ServiceError(
      'invalid_request',
      'build, uname-version, ambiguous, like and codename need the parameter kernel',
    )
  if (sha256 !== undefined && query.partial !== undefined)
    throw new ServiceError(
      'invalid_request',
      'partial needs the parameter kernel, or filters: a digest does not tell of which kernel its BTF is',
    )
  if (sha256 !== undefined) return { name: sha256, sha256, modules: [] }
  if (text === undefined) return undefined
  const name = kernelIn(text)
  const allowed = query.partial === 'allow'
  const { record, partial } = await resolveWithPartial(
    context,
    request,
    name,
    choiceOf(query),
    allowed,
  )
  const { kernel, btf, symbols } = record
  const { sha256: digest } = btf
  const facts = factsOf(record)
  const modules = moduleDigests(record)
  return { name: nameOf(kernel), sha256: digest, modules, symbols, facts, partial }
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
  const filter = filterOf(query)
  requireMatches(catalog, filter)
  const all = [...selectTargets(catalog, filter)]
  if (all.length === 0) throw new ServiceError('unknown_kernel', 'no kernel with BTF matches')
  return all.map(({ btf: { sha256, size }, modules, ...rest }) => ({
    ...rest,
    partial: rest.facts.partial === true,
    sha256,
    size,
    modules: modules.map((module) => module.sha256),
  }))
}

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
