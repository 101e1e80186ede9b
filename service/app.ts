/*
 * The HTTP service as a value: routes over a store and its catalog, not yet listening. Each feature is a plugin in a
 * file of its own, and a line in ROUTES; what it works with is in the context.
 */
import type { FastifyPluginAsyncTypebox, TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import fastify, { type FastifyBaseLogger, type FastifyInstance, type FastifyReply } from 'fastify'
import { archiveTreeRoutes } from './archive-tree.ts'
import { btfRoutes } from './btf.ts'
import { bundleRoutes } from './bundles.ts'
import { checkRoutes } from './check.ts'
import type { Config } from './config.ts'
import { type Context, type ContextOptions, openContext } from './context.ts'
import { debuginfodRoutes } from './debuginfod.ts'
import { collectDocument, documentRoutes } from './document.ts'
import { ServiceError } from './error.ts'
import { frontOf } from './front.ts'
import { registerGuards } from './guard.ts'
import { healthRoutes } from './health.ts'
import { jobRoutes } from './jobs.ts'
import { kernelRoutes } from './kernels.ts'
import { RequestLog, requestId } from './log.ts'
import { metricRoutes, registerMetrics } from './metrics.ts'
import { minimizeRoutes } from './minimize.ts'
import { missRoutes } from './missed.ts'
import { onlineRoutes } from './online.ts'
import { openAnolisRoutes } from './openanolis.ts'
import { registerProblems, sendBroken, sendProblem } from './problem.ts'
import { snapshotRoutes } from './snapshot.ts'

export interface AppOptions extends ContextOptions {
  logger?: FastifyBaseLogger
}

/** Characters of a part of an address. */
const MAX_PARAMETER = 512
const ROUTES: readonly ((context: Context) => FastifyPluginAsyncTypebox)[] = [
  btfRoutes,
  checkRoutes,
  minimizeRoutes,
  bundleRoutes,
  missRoutes,
  kernelRoutes,
  jobRoutes,
  snapshotRoutes,
  archiveTreeRoutes,
  openAnolisRoutes,
  onlineRoutes,
  debuginfodRoutes,
  metricRoutes,
  documentRoutes,
]

/** Puts the service together; closing it ends all that it started. Errors: those of `openContext`. */
export async function buildApp({ logger, ...options }: AppOptions): Promise<FastifyInstance> {
  const context = await openContext({ onError: (error) => logger?.error(error), ...options })
  const { logRequests } = context.settings
  const app = fastify({
    ...limitsOf(context.settings),
    serverFactory: frontOf(context, logger),
    ...(logger ? { loggerInstance: logger } : { logger: false }),
    logController: new RequestLog({ disableRequestLogging: !logger || !logRequests }),
    genReqId: requestId,
    ajv: { customOptions: { removeAdditional: false } }, // what is not known is refused where that matters
    routerOptions: { maxParamLength: MAX_PARAMETER },
    forceCloseConnections: 'idle',
    return503OnClosing: false, // who is connected while it stops still gets an answer
    clientErrorHandler: sendBroken,
    frameworkErrors: (error, _, reply) => {
      sendProblem(reply as FastifyReply, new ServiceError('bad_request', error.message))
    },
  }).withTypeProvider<TypeBoxTypeProvider>()
  app.addHook('onClose', () => context.close())
  app.decorateRequest('holder', undefined)
  registerProblems(app)
  // what is said is what the handler says: a test holds it against the schemas, and nothing is cut off to fit
  app.setSerializerCompiler(() => JSON.stringify)
  registerMetrics(app, context)
  collectDocument(app)
  app.register(healthRoutes(context)) // unguarded: who asks is the operator's own
  app.register(async (guarded) => {
    await registerGuards(guarded, context)
    for (const routes of ROUTES) guarded.register(routes(context))
  })
  return app
}

/** What Fastify checks of a request before anything else does. */
const limitsOf = ({ bodyLimit, trustProxy }: Config) => ({
  bodyLimit,
  trustProxy: trustProxy.length > 0 && [...trustProxy],
})
