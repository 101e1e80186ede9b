/*
 * /check: a form for a BPF object, and its results by the object's digest. The object is kept for a while, bounded, so that
 * the address of a result can be shared, shows kernels that come later, and leads to a bundle.
 */
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyRequest } from 'fastify'
import Type from 'typebox'
import type { Check } from '../../bpf/index.ts'
import { mapOrdered, sha256Of } from '../../storage/index.ts'
import { Bundle } from '../bundle/bundle.ts'
import { SHORT } from '../cache/btf-bodies.ts'
import { ServiceError } from '../error.ts'
import type { Context } from '../http/context.ts'
import { takePlace } from '../http/place.ts'
import { callerOf, disconnectSignal } from '../http/requester.ts'
import { Sha256 } from '../http/schema.ts'
import { sendBytes } from '../http/send.ts'
import { prefersJson, sendErrorPage, sendPage, UNCACHED } from '../http/send-page.ts'
import { acceptUploads, bodyLimitOf, objectsOf } from '../http/upload.ts'
import { selectTargets, type TargetKernel } from '../kernel/targets.ts'
import { type KeptObject, KeptObjects } from '../objects/kept-objects.ts'
import { browserModules } from '../page/browser-modules.ts'
import { checkFormPage } from '../page/check-form.ts'
import {
  badgeOf,
  CheckSummary,
  type CheckView,
  checkedPage,
  checkingPage,
  type KernelVerdict,
} from '../page/check-page.ts'
import { CheckRuns, type RunProgress } from '../page/check-runs.ts'
import { localChoices } from '../page/local-kernels.ts'
import { untilTooComplex } from './for-kernels.ts'

/** Kernels that a result covers: the newest of each series first. */
const MAX_KERNELS = 600
/** Milliseconds that a request waits for a result, and seconds after which its page loads again. */
const PATIENCE = 3000
const REFRESH = 2

const hide = true
const params = Type.Object({ digest: Sha256 })

export const checkPageRoutes =
  (context: Context): FastifyPluginAsyncTypebox =>
  async (app) => {
    const { settings, catalog, kernelTable, objects, store, pool, bulkRequests, bundles } = context
    const limits = { files: 1, fileSize: settings.uploadLimit }
    const kept = new KeptObjects(
      settings.state === '' ? undefined : `${settings.state}/objects`,
      (error) => app.log.error(error),
    )
    const runs = new CheckRuns<CheckView>()
    app.addHook('preClose', async () => runs.close())
    app.setErrorHandler(sendErrorPage)
    await acceptUploads(app, context, limits)

    /** Errors: `not_found`. */
    const keptObject = async (digest: string): Promise<KeptObject> => {
      const object = await kept.get(digest)
      if (object) return object
      throw new ServiceError('not_found', 'this object is not kept any more; drop it again', {
        details: { links: [{ href: '/check', text: 'Check an object' }] },
      })
    }

    const checkAll = async (
      digest: string,
      progress: RunProgress,
      signal: AbortSignal,
    ): Promise<CheckView> => {
      const { name, bytes } = await keptObject(digest)
      const [object] = await objects.open([{ name, bytes }], signal)
      const all = [...selectTargets(catalog, {})]
      const targets = newestFirst(all).slice(0, MAX_KERNELS)
      const attempt = untilTooComplex()
      const sharing = objects.sharing()
      const check = ({ btf, modules, symbols, facts }: TargetKernel) =>
        attempt(digest, () =>
          objects.checked(
            objects.bulk,
            {
              ...{ sha256: btf.sha256, size: btf.size },
              modules: modules.map(({ sha256 }) => sha256),
              ...{ symbols, facts },
            },
            object!,
            { signal, sharing },
          ),
        )
      const summary = new CheckSummary()
      const rows = new Map(kernelTable().rows.map((row, place) => [row.name, { row, place }]))
      const verdictOf = (
        { name, build }: TargetKernel,
        json: string,
      ): KernelVerdict | undefined => {
        const listed = rows.get(name)
        if (!listed) return undefined // new since the table was made
        const answer = JSON.parse(json) as Check | { error: { message: string } }
        const result = 'error' in answer ? { error: answer.error.message } : answer
        return { ...listed, ...(build !== undefined && { build }), result }
      }
      progress.total = targets.length
      const results = mapOrdered(targets, objects.width, async (target) => ({
        target,
        json: await check(target),
      }))
      for await (const { target, json } of results) {
        progress.done++
        const verdict = verdictOf(target, json)
        if (verdict) summary.add(verdict)
      }
      const size = bytes.length
      return summary.view({ name, digest, size }, all.length - targets.length)
    }

    /** The result for an object, worked out once for each state of the catalog; or how far that is. */
    const resultOf = async (
      request: FastifyRequest,
      digest: string,
    ): Promise<{ result: CheckView } | { progress: RunProgress }> => {
      const key = `page check ${digest} ${catalog.version}`
      const known = objects.results.find(key)
      if (known) return { result: JSON.parse(known.bytes.toString()) }
      await keptObject(digest)
      const caller = callerOf(request)
      const run = async (progress: RunProgress, signal: AbortSignal) => {
        const end = bulkRequests.take(caller)
        try {
          const view = await checkAll(digest, progress, signal)
          const bytes = Buffer.from(JSON.stringify(view))
          await objects.results.body(key, async () => ({ bytes }))
          return view
        } finally {
          end()
        }
      }
      return await runs.look(key, PATIENCE, run).catch(waiting)
    }

    app.get('/check', { schema: { hide } }, (request, reply) =>
      sendPage(
        request,
        reply,
        checkFormPage({
          kernels: kernelTable().numbers().kernels,
          limit: settings.uploadLimit,
          isKept: settings.state !== '',
          local: { worker: browserModules().worker, choices: localChoices(kernelTable()) },
        }),
      ),
    )

    app.post(
      '/check',
      { bodyLimit: bodyLimitOf(limits), schema: { hide } },
      async (request, reply) => {
        const [file] = await objectsOf(request, limits)
        await objects.open([file!], disconnectSignal(reply))
        const digest = await kept.put(file!)
        return reply.redirect(`/check/${digest}`, 303)
      },
    )

    app.get('/check/:digest', { schema: { hide, params } }, async (request, reply) => {
      const { digest } = request.params
      const answer = await resultOf(request, digest)
      if ('result' in answer) return await sendPage(request, reply, checkedPage(answer.result))
      reply.header('refresh', REFRESH).header('retry-after', REFRESH)
      const status = prefersJson(request.headers.accept) ? 202 : 200
      const page = checkingPage(digest, answer.progress)
      return await sendPage(request, reply, page, { status, cacheControl: UNCACHED })
    })

    app.get('/check/:digest/badge.svg', { schema: { hide, params } }, async (request, reply) => {
      const answer = await resultOf(request, request.params.digest)
      const result = 'result' in answer ? answer.result : undefined
      const bytes = Buffer.from(badgeOf(result))
      // a README on another site shows it
      reply.header('cross-origin-resource-policy', 'cross-origin')
      const etag = `"${sha256Of(bytes)}"`
      const cacheControl = result ? SHORT : UNCACHED
      return sendBytes(request, reply, bytes, { etag, cacheControl, type: 'image/svg+xml' })
    })

    app.get('/check/:digest/bundle', { schema: { hide, params } }, async (request, reply) => {
      const object = await keptObject(request.params.digest)
      takePlace(bundles, request, reply, settings.idleTimeout)
      const signal = disconnectSignal(reply)
      const window = settings.bundleWindow
      const bundle = await Bundle.open(
        { store, catalog, pool, profile: 'tree', filter: {}, objects: [object], window },
        signal,
      )
      return reply
        .header('cache-control', 'no-store')
        .header('content-disposition', `attachment; filename="${bundle.file}"`)
        .type(bundle.type)
        .send(bundle.archive())
    })
  }

/** A check that finds no place is tried again when its page loads again. Rethrows other errors. */
function waiting(error: unknown): { progress: RunProgress } {
  if (error instanceof ServiceError && error.code === 'busy')
    return { progress: { done: 0, total: 0 } }
  throw error
}

/** The targets so that the newest kernels of all distributions and architectures come first. */
function newestFirst(targets: readonly TargetKernel[]): TargetKernel[] {
  const groups = Map.groupBy(targets, ({ name }) => name.slice(0, name.lastIndexOf('/')))
  const ranked = [...groups.values()].flatMap((group) =>
    group.toReversed().map((target, rank) => ({ target, rank })),
  )
  return ranked.sort((a, b) => a.rank - b.rank).map(({ target }) => target)
}
