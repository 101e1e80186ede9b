import { access, constants, mkdir, readFile } from 'node:fs/promises'
import { type Logger, pino } from 'pino'
import type { OnDemandGenerator } from '../../generator/index.ts'
import { openStore, type Store } from '../../storage/index.ts'
import { type Config, type Reading, readConfig, shown } from '../config.ts'
import { startServer } from '../server.ts'
import { readSecretKey } from './secret.ts'
import { roomOf } from './size.ts'

interface ServeOptions extends Record<string, unknown> {
  config?: string
  json?: boolean
}

/** `btfmill serve`: answers until SIGINT or SIGTERM. Returns the exit status. */
export async function run({ config: path, json, ...flags }: ServeOptions): Promise<number> {
  const reading = await read(path, json ? { logFormat: 'json', ...flags } : flags)
  if (reading.kind === 'wrong') {
    for (const problem of reading.problems) console.error(`btfmill: ${problem}`)
    return 2
  }
  const logger = loggerOf(reading.config)
  const config = { ...reading.config, state: await stateFor(reading.config, logger) }
  logger.info({ config: shown(config) }, 'btfmill starts')
  const store = await openStore(config.store)
  const mill = config.generate === 'on-miss' ? await openMill(store, config) : undefined
  const server = await startServer({ store, config, logger, ...(mill && { generator: mill }) })
  const signal = await new Promise<NodeJS.Signals>((resolve) => {
    process.once('SIGINT', resolve)
    process.once('SIGTERM', resolve)
  })
  logger.info({ signal }, 'btfmill stops')
  await Promise.all([server.stop(), mill?.close()])
  return 0
}

/** Loaded where it is wanted: a service that makes nothing needs no pahole. */
async function openMill(store: Store, config: Config): Promise<OnDemandGenerator> {
  const { generateQueue: limit, generateJobs: jobs, queue, mirror } = config
  const { OnDemandGenerator, readSources } = await import('../../generator/index.ts')
  const sources = await readSources(config.sources || undefined)
  const secretKey = await readSecretKey(config.secretKey || undefined)
  return await OnDemandGenerator.open({
    ...{ store, limit, jobs, sources: [...sources.values()] },
    ...(queue && { queue }),
    ...(mirror && { mirror }),
    ...roomOf(config.generateMemory || undefined, {
      ...(config.scratch && { directory: config.scratch }),
      ...(config.scratchSize > 0 && { size: config.scratchSize }),
    }),
    ...(secretKey && { secretKey }),
  })
}

async function read(path: string | undefined, flags: Record<string, unknown>): Promise<Reading> {
  const layers = { env: process.env, flags }
  if (path === undefined) return readConfig(layers)
  try {
    return readConfig({ ...layers, file: JSON.parse(await readFile(path, 'utf8')) })
  } catch (error) {
    return { kind: 'wrong', problems: [`${path}: ${(error as Error).message}`] }
  }
}

/**
 * The directory for what the server remembers: the one that is set, else one beside a store on disk, if it can be
 * written. Without one all that is forgotten when the server ends.
 */
async function stateFor({ state, store }: Config, logger: Logger): Promise<string> {
  const [, directory] = /^file:(.+?)\/*$/.exec(store) ?? []
  if (state !== '' || directory === undefined) return state
  const beside = `${directory}-state`
  try {
    await mkdir(beside, { recursive: true })
    await access(beside, constants.W_OK)
    return beside
  } catch (error) {
    logger.warn(error, 'misses are forgotten when this ends: there is no --state')
    return ''
  }
}

/** Lines go out some at a time, and after so many milliseconds at the latest. */
const TOGETHER = { sync: false, minLength: 8192, periodicFlush: 100 }

function loggerOf({ logLevel: level, logFormat }: Config): Logger {
  const pretty = logFormat === 'pretty' || (logFormat === 'auto' && process.stdout.isTTY)
  if (pretty) return pino({ level, transport: { target: 'pino-pretty' } })
  return pino({ level }, pino.destination(TOGETHER))
}
