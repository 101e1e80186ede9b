// `npm run attack [-- --minutes N] [PART …]` attacks a service, the generator and the client on loopback. It starts all
// that it attacks. Each part prints its bounds and what was measured; if one is broken the exit status is 1. The service
// is attacked for N minutes (default: 30); the parts `generator` and `client` take about a minute each.
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { table } from '../bench/measure.ts'
import { attackClient } from './client.ts'
import { attackGenerator } from './generator.ts'
import { attackService } from './service.ts'

/** What was measured, and whether it is within its bound. */
export interface Finding {
  what: string
  measured: string
  bound: string
  holds: boolean
}

export interface Target {
  /** a directory that is removed afterwards */
  directory: string
  minutes: number
  /** Runs when the part ends. */
  teardown(end: () => unknown): void
}

const PARTS: Record<string, (target: Target) => Promise<Finding[]>> = {
  service: attackService,
  generator: attackGenerator,
  client: attackClient,
}

async function run(name: string, minutes: number): Promise<boolean> {
  const directory = await mkdtemp(join(tmpdir(), 'attack-'))
  const ends: (() => unknown)[] = []
  const cleanUp = async () => {
    for (const end of ends.splice(0).reverse()) await end()
    await rm(directory, { recursive: true, force: true })
  }
  for (const signal of ['SIGINT', 'SIGTERM'])
    process.once(signal, () => cleanUp().finally(() => process.exit(1)))
  try {
    const target = { directory, minutes, teardown: (end: () => unknown) => ends.push(end) }
    const findings = await PARTS[name]!(target)
    const rows = findings.map(({ what, measured, bound, holds }) => [
      what,
      measured,
      bound,
      holds ? 'yes' : 'NO',
    ])
    console.log(`${table([[name, 'measured', 'bound', 'holds'], ...rows])}\n`)
    return findings.every(({ holds }) => holds)
  } finally {
    await cleanUp()
  }
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { minutes: { type: 'string', default: '30' } },
})
const minutes = Number(values.minutes)
const unknown = positionals.filter((name) => !(name in PARTS))
if (!(minutes > 0) || unknown.length > 0) {
  console.error(`usage: npm run attack [-- --minutes N] [${Object.keys(PARTS).join('|')} …]`)
  process.exit(2)
}
let held = true
for (const name of positionals.length > 0 ? positionals : Object.keys(PARTS))
  held = (await run(name, minutes)) && held
process.exit(held ? 0 : 1) // a request that an attack left open must not hold up the end
