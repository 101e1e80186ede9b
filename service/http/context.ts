/*
 * The shared parts of an app: stores, caches, queues and limits that outlive a request. Parts that count have `counts`,
 * plain numbers since the start, which routes/metrics.ts exports.
 */
import { join } from 'node:path'
import { Catalog, partialOf, type Store } from '../../storage/index.ts'
import { Archives } from '../cache/archives.ts'
import { BodyCache } from '../cache/body-cache.ts'
import { Bodies } from '../cache/btf-bodies.ts'
import { Deltas } from '../cache/deltas.ts'
import { Quota } from '../concurrency.ts'
import { type Config, DEFAULTS } from '../config.ts'
import { KeptIndex } from '../declarations/keeper.ts'
import { NO_INDEX } from '../declarations/location.ts'
import { Demand } from '../demand/demand.ts'
import type { BtfGenerator } from '../demand/generation.ts'
import { Misses } from '../demand/misses.ts'
import { Usage } from '../demand/usage.ts'
import { BtfViews } from '../objects/btf-views.ts'
import { Objects } from '../objects/results.ts'
import { type KernelTable, kernelTables } from '../page/kernel-table.ts'
import { Pool } from '../threads/pool.ts'
import { Upstreams } from '../upstream/upstreams.ts'
import { Metrics } from './metrics.ts'
import { Readiness } from './readiness.ts'
import { openRedirects, type Redirects } from './redirect.ts'
import { ResponseCache } from './response-cache.ts'
import type { Tokens } from './token.ts'
import { bodyLimitOf, objectLimits } from './upload.ts'

export interface ContextOptions {
  store: Store
  catalog: Catalog
  /** the catalog of partial BTF (default: one that finds kernels as they are asked for) */
  partial?: Catalog
  settings?: Partial<Config>
  /** default: the catalog is loaded already */
  readiness?: Readiness
  tokens?: Tokens
  metrics?: Metrics
  /** generates missing BTF if `settings.generate` is `on-miss` */
  generator?: BtfGenerator
  /** minisign secret key: signs the catalog when kernels are taken over from upstreams */
  secretKey?: string
  /** called with errors that no request reports */
  onError?: (error: unknown) => void
}

export interface Context {
  readonly store: Store
  readonly catalog: Catalog
  readonly settings: Config
  readonly readiness: Readiness
  readonly tokens: Tokens | undefined
  readonly metrics: Metrics
  readonly onDemand: Demand | undefined
  /** partial BTF, made from headers, for requests that allow it */
  readonly partial: PartialContext
  readonly upstreams: Upstreams | undefined
  readonly bodyCache: BodyCache
  readonly bodies: Bodies
  readonly deltas: Deltas
  readonly responseCache: ResponseCache
  /** threads that work on uploaded objects */
  readonly pool: Pool
  readonly archives: Archives
  /** bytes of all uploads that are received or worked on */
  readonly uploads: Quota
  /** requests that work on many kernels */
  readonly bulkRequests: Quota
  /** bundles that are made */
  readonly bundles: Quota
  /** bytes of answers that are complete, and that clients have not read yet */
  readonly answers: Quota
  readonly objects: Objects
  /** what pages show of types */
  readonly views: BtfViews
  /** the kernels of the catalog, as pages list them */
  readonly kernelTable: () => KernelTable
  readonly misses: Misses
  readonly usage: Usage
  readonly redirects: Redirects | undefined
  /** the index of all types; undefined if this service has none */
  readonly declarations: KeptIndex | undefined
  /** Ends threads and background work. */
  close(): Promise<void>
}

/** The parts that partial BTF has of its own, so that nothing takes it for that of a whole kernel. */
export interface PartialContext {
  readonly catalog: Catalog
  readonly bodies: Bodies
  readonly objects: Objects
}

const MIB = 1024 * 1024

/** One client may have this part of the memory for uploads, and for answers; but always enough for one. */
const SHARES = 4
const MIN_ANSWER = 16 * MIB
/** The part of a number of requests that one client may have. */
const halfOf = (count: number): number => Math.ceil(count / 2)

/** Milliseconds without a task after which a thread ends: whoever reads pages does not wait for one to start each time. */
const THREAD_IDLE = 600_000

/** Errors: the system's, for the state files. */
export async function openContext(options: ContextOptions): Promise<Context> {
  const { store, catalog, generator, tokens, metrics = new Metrics(), onError = () => {} } = options
  const settings = { ...DEFAULTS, ...options.settings }
  const stateFile = (name: string) =>
    settings.state === '' ? undefined : join(settings.state, name)
  const bodyCache = new BodyCache(settings.bodyCache)
  const pool = new Pool({
    threads: settings.threads,
    time: settings.taskTime * 1000,
    memory: settings.taskMemory / MIB,
    idle: THREAD_IDLE,
  })
  const bodies = new Bodies(store, bodyCache, pool)
  const readiness = options.readiness ?? loadedNow(store)
  const declarations =
    settings.index === '' || settings.index === NO_INDEX
      ? undefined
      : new KeptIndex({
          ...{ path: settings.index, store, catalog, pool, onError },
          isLoaded: () => readiness.loaded,
        })
  const objects = new Objects({
    ...{ store, bodies, pool, size: settings.resultMemory },
    findAlike: declarations?.findAlike,
  })
  const partialStore = partialOf(store)
  const partialBodies = new Bodies(partialStore, bodyCache, pool)
  const partial = {
    catalog: options.partial ?? new Catalog(partialStore),
    bodies: partialBodies,
    objects: new Objects({
      store: partialStore,
      bodies: partialBodies,
      pool,
      size: settings.resultMemory / SHARES,
    }),
  }
  const onDemand =
    generator && settings.generate === 'on-miss'
      ? new Demand(generator, catalog, settings)
      : undefined
  const { secretKey } = options
  const upstreams =
    settings.upstream.length > 0
      ? new Upstreams({ store, catalog, pool, settings, secretKey, onError })
      : undefined
  const misses = await Misses.open(stateFile('misses.ndjson'), onError)
  const usage = new Usage({ store, onError })
  const redirects = await openRedirects(store.url, settings.redirectAbove)
  const archivesFile = stateFile('archives.ndjson')
  const archives = await Archives.open(
    { store, catalog, cache: bodyCache, bodies, onError },
    archivesFile,
  )
  return {
    store,
    catalog,
    settings,
    declarations,
    readiness,
    tokens,
    metrics,
    onDemand,
    partial,
    upstreams,
    uploads: new Quota(
      settings.uploadMemory,
      'too many uploads at once; retry later',
      Math.max(settings.uploadMemory / SHARES, bodyLimitOf(objectLimits(settings.uploadLimit))),
    ),
    bulkRequests: new Quota(
      settings.bulkRequests,
      'too many requests for many kernels are running; retry later',
      halfOf(settings.bulkRequests),
    ),
    bundles: new Quota(
      settings.bundles,
      'too many bundles are being built; retry later',
      halfOf(settings.bundles),
    ),
    answers: new Quota(
      settings.answerMemory,
      'too many answers wait for their readers; retry later',
      Math.max(settings.answerMemory / SHARES, MIN_ANSWER),
    ),
    responseCache: new ResponseCache({ catalog, bodies }),
    bodyCache,
    bodies,
    deltas: new Deltas({ catalog, bodies, cache: bodyCache, pool }),
    pool,
    objects,
    views: new BtfViews(objects, pool),
    kernelTable: kernelTables(catalog),
    archives,
    misses,
    usage,
    redirects,
    close: async () => {
      await upstreams?.close()
      await Promise.all([
        pool.close(),
        archives.close(),
        misses.close(),
        usage.close(),
        declarations?.close(),
      ])
    },
  }
}

function loadedNow(store: Store): Readiness {
  const readiness = new Readiness(store)
  readiness.loadedAt = Date.now()
  return readiness
}
