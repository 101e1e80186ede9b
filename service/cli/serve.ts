import { pino } from 'pino'
import { openStore } from '../../storage/index.ts'
import { startServer } from '../server.ts'
import type { CommonOptions } from './filter.ts'

interface Options extends CommonOptions {
  listen: string
}

/** `btfmill serve`: answers until SIGINT or SIGTERM. Returns the exit status. */
export async function run({ store, listen, json = false }: Options): Promise<number> {
  const [, host, port] = /^(?:\[?([^\]]*?)\]?:)?(\d{1,5})$/.exec(listen) ?? []
  if (port === undefined || Number(port) > 65535) {
    console.error(`btfmill: --listen takes HOST:PORT, not ${listen}`)
    return 2
  }
  const pretty = process.stdout.isTTY && !json
  const logger = pino({
    level: process.env.LOG_LEVEL ?? 'info',
    ...(pretty && { transport: { target: 'pino-pretty' } }),
  })
  const server = await startServer({
    store: await openStore(store),
    host: host || '127.0.0.1',
    port: Number(port),
    logger,
  })
  await new Promise((resolve) => {
    process.once('SIGINT', resolve)
    process.once('SIGTERM', resolve)
  })
  await server.stop()
  return 0
}
