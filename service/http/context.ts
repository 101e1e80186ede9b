/*
 * What the routes work with, put together once for each app. A feature that keeps something between requests has it
 * here, as a value of its own; what counts has `counts`, plain numbers since the start, for who exports them.
 */
import { join } from 'node:path'
import type { Catalog, Store } from '../../storage/index.ts'
import { Archives } from '../cache/archives.ts'
import { BodyCache } from '../cache/body-cache.ts'
import { Bodies } from '../cache/btf-bodies.ts'
import { Quota } from '../concurrency.ts'
import { type Config, DEFAULTS } from '../config.ts'
import { Demand } from '../demand/demand.ts'
import type { BtfGenerator } from '../demand/generation.ts'
import { Misses } from '../demand/misses.ts'
import { Objects } from '../objects/results.ts'
import { Pool } from '../threads/pool.ts'
import { Metrics } from './metrics.ts'
import { Readiness } from './readiness.ts'
import { openRedirects, type Redirects } from './redirect.ts'
import { ResponseCache } from './response-cache.ts'
import type { Tokens } from './token.ts'

export interface ContextOptions {
  store: Store
  catalog: Catalog
  settings?: Partial<Config>
  /** else the catalog is taken to be loaded */
  readiness?: Readiness
  tokens?: Tokens
  metrics?: Metrics
  /** makes what is asked for and not there, where `settings.generate` says so */
  generator?: BtfGenerator
  /** told what goes wrong apart from requests */
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
  readonly bodyCache: BodyCache
  readonly bodies: Bodies
  readonly responseCache: ResponseCache
  /** threads for what strangers send */
  readonly pool: Pool
  readonly archives: Archives
  /** for the bytes of all that is being sent or worked on */
  readonly uploadQuota: Quota
  readonly objects: Objects
  readonly misses: Misses
  readonly redirects: Redirects | undefined
  /** Ends what is under way, and what was started for it. */
  close(): Promise<void>
}

const MIB = 1024 * 1024

/** Errors: the system's, for what is kept in files. */
export async function openContext(options: ContextOptions): Promise<Context> {
  const { store, catalog, generator, tokens, metrics = new Metrics(), onError = () => {} } = options
  const settings = { ...DEFAULTS, ...options.settings }
  const stateFile = (name: string) =>
    settings.state === '' ? undefined : join(settings.state, name)
  const memory = new BodyCache(settings.bodyCache)
  const pool = new Pool({ time: settings.taskTime * 1000, memory: settings.taskMemory / MIB })
  const bodies = new Bodies(store, memory, pool)
  const objects = new Objects({ store, bodies, pool, size: settings.resultMemory })
  const onDemand =
    generator && settings.generate === 'on-miss'
      ? new Demand(generator, catalog, settings)
      : undefined
  const readiness = options.readiness ?? loadedNow(store)
  const misses = await Misses.open(stateFile('misses.ndjson'), onError)
  const redirects = await openRedirects(store.url, settings.redirectAbove)
  const archivesFile = stateFile('archives.ndjson')
  const archives = await Archives.open({ store, catalog, memory, bodies, onError }, archivesFile)
  return {
    ...{ store, catalog, settings, readiness, tokens, metrics, onDemand },
    uploadQuota: new Quota(settings.uploadMemory, 'too much is being sent at once'),
    responseCache: new ResponseCache({ catalog, bodies, readiness, settings }),
    bodyCache: memory,
    ...{ bodies, pool, objects, archives, misses, redirects },
    close: async () => {
      await Promise.all([pool.close(), archives.close(), misses.close()])
    },
  }
}

function loadedNow(store: Store): Readiness {
  const readiness = new Readiness(store)
  readiness.loadedAt = Date.now()
  return readiness
}
