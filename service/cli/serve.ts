import { access, constants, mkdir, readFile } from 'node:fs/promises'
import { InvalidArgumentError } from 'commander'
import { type Logger, pino } from 'pino'
import type { OnDemandGenerator } from '../../generator/index.ts'
import { DEFAULT_STORE, openStore, type Store, StoreError } from '../../storage/index.ts'
import { type Config, type Reading, readConfig, shown } from '../config.ts'
import { indexIn, indexOf, NO_INDEX } from '../declarations/location.ts'
import { indexFits } from '../memory.ts'
import { openServedPack, type ServedPack } from '../pack/served.ts'
import { startServer } from '../server.ts'
import { budgetOf, keyDirectories, readKey } from './input.ts'

interface ServeOptions {
  config?: string
  json?: boolean
}

/** `btfmill serve`: serves until SIGINT or SIGTERM; SIGHUP reloads. `flags` are the settings given as flags. Returns the exit status. */
export async function run(
  { config: path, json }: ServeOptions,
  flags: Readonly<Record<string, unknown>>,
): Promise<number> {
  const reading = await read(path, json ? { logFormat: 'json', ...flags } : flags)
  if (reading.kind === 'wrong') throw new InvalidArgumentError(reading.problems.join('; '))
  const logger = loggerOf(reading.config)
  const packs = await Promise.all(reading.config.pack.map(openServedPack))
  const store = await openStoreBeside(packs, reading.config)
  const state = reading.config.state || (await stateBeside(store, logger))
  const config = {
    ...reading.config,
    state,
    index: await indexFor(reading.config, store, state, logger),
  }
  logger.info({ config: shown(config) }, 'btfmill starts')
  const generator = config.generate === 'on-miss' ? await openGenerator(store, config) : undefined
  const secretKey = config.upstream.length > 0 ? await readKey(config.secretKey) : undefined
  const server = await startServer({
    store,
    packs,
    config,
    logger,
    ...(generator && { generator }),
    ...(secretKey !== undefined && { secretKey }),
  })
  // also while it stops: the default would end the process and cut off responses
  process.on('SIGHUP', () => {
    logger.info('SIGHUP: btfmill reads the tokens and the catalog again')
    server.reload()
  })
  const signal = await new Promise<NodeJS.Signals>((resolve) => {
    process.once('SIGINT', resolve)
    process.once('SIGTERM', resolve)
  })
  logger.info({ signal }, 'btfmill stops')
  await Promise.all([server.stop(), generator?.close()])
  return 0
}

/** Opens the store. With packs, the default store may be missing, and is not made. Errors: those of `openStore`. */
async function openStoreBeside(
  packs: readonly ServedPack[],
  { store, generate }: Config,
): Promise<Store> {
  const create = packs.length === 0 || store !== DEFAULT_STORE || generate !== 'none'
  return await openStore(store, { create }).catch(async (error: unknown) => {
    const isMissing = error instanceof StoreError && error.code === 'not_found'
    if (create || !isMissing) throw error
    return await openStore('memory:')
  })
}

/** Loads the generator only if it is used: a service that generates nothing needs no pahole. */
async function openGenerator(store: Store, config: Config): Promise<OnDemandGenerator> {
  const { maxGenerations: limit, jobs, jobMemory, scratch, queue, mirror } = config
  const { OnDemandGenerator, readSources } = await import('../../generator/index.ts')
  const sources = await readSources(config.sources || undefined, keyDirectories(config.keys))
  const secretKey = await readKey(config.secretKey)
  return await OnDemandGenerator.open({
    store,
    limit,
    jobs,
    sources: [...sources.values()],
    ...(queue && { queue }),
    ...(mirror && { mirror }),
    paholeThreads: config.paholeThreads,
    ...budgetOf(jobMemory, scratch),
    ...(secretKey && { secretKey }),
  })
}

async function read(path: string | undefined, flags: Record<string, unknown>): Promise<Reading> {
  const layers = { env: process.env, flags }
  if (!path) return readConfig(layers)
  try {
    return readConfig({ ...layers, file: JSON.parse(await readFile(path, 'utf8')) })
  } catch (error) {
    return { kind: 'wrong', problems: [`${path}: ${(error as Error).message}`] }
  }
}

/**
 * The directory beside a store on disk for what the server remembers, if it is writable. Without one, all of that is
 * forgotten when the server ends.
 */
async function stateBeside({ url }: Store, logger: Logger): Promise<string> {
  if (!url.startsWith('file:')) return ''
  const beside = `${url.slice('file:'.length)}-state`
  try {
    await mkdir(beside, { recursive: true })
    await access(beside, constants.W_OK)
    return beside
  } catch (error) {
    logger.warn(error, 'no --state: misses are forgotten when the service ends')
    return ''
  }
}

/** The file of the index of all types, or `off`. */
async function indexFor(
  config: Config,
  store: Store,
  state: string,
  logger: Logger,
): Promise<string> {
  if (config.index !== '') return config.index
  if (!indexFits()) {
    logger.info('no --index, and less than 1 GB of memory: this service has no index of types')
    return NO_INDEX
  }
  if (state !== '') return indexIn(state)
  const path = await indexOf(store.url)
  if (path === undefined)
    logger.warn('no --index and no writable cache directory: this service has no index of types')
  return path ?? NO_INDEX
}

/** Log lines are written in batches of so many bytes, or after so many milliseconds. */
const BATCHES = { sync: false, minLength: 8192, periodicFlush: 100 }

function loggerOf({ logLevel: level, logFormat }: Config): Logger {
  const pretty = logFormat === 'pretty' || (logFormat === 'auto' && process.stdout.isTTY)
  if (pretty) return pino({ level, transport: { target: 'pino-pretty' } })
  return pino({ level }, pino.destination(BATCHES))
}
