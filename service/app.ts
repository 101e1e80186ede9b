/*
 * The HTTP app: all routes over a store and its catalog, not yet listening. Each feature is a plugin in its own file and a
 * line in ROUTES; the context holds what the plugins share.
 */
import type { FastifyPluginAsyncTypebox, TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import fastify, { type FastifyBaseLogger, type FastifyInstance } from 'fastify'
import type { Config } from './config.ts'
import { ServiceError } from './error.ts'
import { type Context, type ContextOptions, openContext } from './http/context.ts'
import { RequestLog, requestId } from './http/log.ts'
import { registerProblems, sendParserError, sendProblem } from './http/problem.ts'
import { parseQuery, refuseUnknownQuery } from './http/query.ts'
import { KERNEL_HEADER } from './http/schema.ts'
import { registerGuards, registerSecurityHeaders } from './http/security.ts'
import { tellService } from './http/via.ts'
import { btfRoutes } from './routes/btf.ts'
import { archiveTreeRoutes } from './routes/btfhub.ts'
import { onlineRoutes } from './routes/btfhub-online.ts'
import { bundleRoutes } from './routes/bundles.ts'
import { checkRoutes } from './routes/check.ts'
import { debuginfodRoutes } from './routes/debuginfod.ts'
import { declarationRoutes } from './routes/declarations.ts'
import { headerRoutes } from './routes/headers.ts'
import { healthRoutes } from './routes/health.ts'
import { jobRoutes } from './routes/jobs.ts'
import { kernelRoutes } from './routes/kernels.ts'
import { metricRoutes, registerMetrics } from './routes/metrics.ts'
import { minimizeRoutes } from './routes/minimize.ts'
import { missRoutes } from './routes/misses.ts'
import { openAnolisRoutes } from './routes/openanolis.ts'
import { collectDocument, documentRoutes } from './routes/openapi.ts'
import { packRoutes } from './routes/packs.ts'
import { checkPageRoutes } from './routes/page-check.ts'
import { diffPageRoutes } from './routes/page-diff.ts'
import { localCheckRoutes } from './routes/page-local-check.ts'
import { statusPageRoutes } from './routes/page-status.ts'
import { typePageRoutes } from './routes/page-types.ts'
import { pageRoutes } from './routes/pages.ts'
import { snapshotRoutes } from './routes/snapshot.ts'

export interface AppOptions extends ContextOptions {
  logger?: FastifyBaseLogger
}

/** Characters of one path segment. */
const MAX_PARAMETER = 512
/** Milliseconds that a connection stays open without a request. */
const KEEP_ALIVE_TIMEOUT = 65_000
/** Milliseconds between two checks of whether requests have timed out. */
const MAX_CHECKING_INTERVAL = 5000

const ROUTES: readonly ((context: Context) => FastifyPluginAsyncTypebox)[] = [
  btfRoutes,
  checkRoutes,
  minimizeRoutes,
  headerRoutes,
  bundleRoutes,
  missRoutes,
  kernelRoutes,
  declarationRoutes,
  jobRoutes,
  snapshotRoutes,
  packRoutes,
  archiveTreeRoutes,
  openAnolisRoutes,
  onlineRoutes,
  debuginfodRoutes,
  metricRoutes,
  documentRoutes,
  pageRoutes,
  typePageRoutes,
  checkPageRoutes,
  localCheckRoutes,
  diffPageRoutes,
  statusPageRoutes,
]

/** Builds the app; `close()` also ends its threads and generations. Errors: those of `openContext`. */
export async function buildApp({ logger, ...options }: AppOptions): Promise<FastifyInstance> {
  const context = await openContext({ onError: (error) => logger?.error(error), ...options })
  const { logRequests } = context.settings
  const app = fastify({
    ...limitsOf(context.settings),
    ...(logger ? { loggerInstance: logger } : { logger: false }),
    logController: new RequestLog({ disableRequestLogging: !logger || !logRequests }),
    genReqId: requestId,
    ajv: { customOptions: { removeAdditional: false } }, // refuse unknown properties, never drop them
    routerOptions: { maxParamLength: MAX_PARAMETER, querystringParser: parseQuery },
    forceCloseConnections: 'idle',
    return503OnClosing: false, // requests on open connections are answered while the service stops
    clientErrorHandler: sendParserError,
    frameworkErrors: (error, _, reply) => {
      sendProblem(
        reply as Parameters<typeof sendProblem>[0],
        new ServiceError('invalid_request', error.message),
      )
    },
  }).withTypeProvider<TypeBoxTypeProvider>()
  app.addHook('onClose', () => context.close())
  app.decorateRequest('holder', undefined)
  registerSecurityHeaders(app)
  registerProblems(app)
  // responses are sent as the handlers made them; a test compares them with the schemas
  app.setSerializerCompiler(() => JSON.stringify)
  refuseUnknownQuery(app)
  registerMetrics(app, context)
  countUsage(app, context)
  collectDocument(app)
  app.register(healthRoutes(context)) // unguarded: the operator's own probes
  app.register(async (guarded) => {
    await registerGuards(guarded, context)
    tellService(guarded, context)
    for (const routes of ROUTES) guarded.register(routes(context))
  })
  return app
}

/** Counts the kernels whose BTF clients got, also from the response cache. */
function countUsage(app: FastifyInstance, { usage }: Context): void {
  app.addHook('onResponse', (_, reply, done) => {
    const name = reply.getHeader(KERNEL_HEADER)
    if (typeof name === 'string' && reply.statusCode < 400) usage.count(name)
    done()
  })
}

/** What Node and Fastify limit before a hook runs. */
function limitsOf(config: Config) {
  const { bodyLimit, trustProxy, headerLimit } = config
  const requestTimeout = config.requestTimeout * 1000
  return {
    bodyLimit,
    trustProxy: trustProxy.length > 0 && [...trustProxy],
    http: {
      maxHeaderSize: headerLimit,
      headersTimeout: requestTimeout,
      connectionsCheckingInterval: Math.min(requestTimeout / 2, MAX_CHECKING_INTERVAL),
    },
    requestTimeout,
    keepAliveTimeout: KEEP_ALIVE_TIMEOUT,
    connectionTimeout: config.idleTimeout * 1000,
  }
}
