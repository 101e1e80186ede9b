import { homedir } from 'node:os'
import { join } from 'node:path'
import { openStore } from '../../storage/index.ts'
import { jsonOf } from '../json.ts'
import { formatSize } from '../size.ts'
import { type Mirrored, ServiceMirror } from '../upstream/mirror.ts'
import {
  type CommonOptions,
  checkFilter,
  type FilterOptions,
  filterOf,
  readKey,
  tokenOf,
} from './input.ts'
import { printable } from './output.ts'

interface MirrorCommandOptions extends CommonOptions, FilterOptions {
  publicKey?: string
  maxAge?: number
  secretKey?: string
  cache?: string
  dryRun?: boolean
}

/** The words of a summary, in its order. */
const WORDS: Readonly<Record<Mirrored['state'], string>> = {
  due: 'would be taken over',
  taken: 'taken over',
  updated: 'updated',
  present: 'present',
  'made here': 'made here',
  refused: 'refused',
}

/** `btfmill mirror`. Returns the exit status: 1 if anything was refused. */
export async function run(
  server: string,
  { dryRun = false, json, ...options }: MirrorCommandOptions,
): Promise<number> {
  const { publicKey, maxAge } = options
  const secretKey = await readKey(options.secretKey)
  const store = await openStore(options.store)
  const mirror = await ServiceMirror.open({
    store,
    server,
    cache: options.cache ?? join(cacheHome(), 'btfmill/mirror'),
    token: await tokenOf(options),
    publicKey: await readKey(publicKey),
    maxAge,
    secretKey,
  })
  const filter = filterOf(options)
  checkFilter(mirror.catalog, filter, mirror.url)
  const count: Partial<Record<Mirrored['state'], number>> = {}
  for await (const mirrored of mirror.run(filter, { dryRun })) {
    count[mirrored.state] = (count[mirrored.state] ?? 0) + 1
    if (json) console.log(jsonOf(mirrored))
    else if (mirrored.state === 'refused')
      console.error(printable(`btfmill: ${mirrored.name}: ${mirrored.code}: ${mirrored.message}`))
    else if (mirrored.state === 'due') console.log(mirrored.name)
  }
  const { bytes } = mirror
  if (json) console.log(jsonOf({ summary: { ...count, bytes } }))
  else {
    const parts = Object.entries(WORDS).flatMap(([state, words]) => {
      const n = count[state as Mirrored['state']]
      return n === undefined ? [] : [`${n} ${words}`]
    })
    console.log(`${parts.join('; ') || 'no kernels'}; ${formatSize(bytes)} read`)
  }
  return count.refused ? 1 : 0
}

const cacheHome = (): string => process.env.XDG_CACHE_HOME || join(homedir(), '.cache')
