import { openStore, verifyStore } from '../../storage/index.ts'
import { jsonOf } from '../json.ts'
import type { CommonOptions } from './filter.ts'
import { printable } from './output.ts'
import { readSecretKey } from './secret.ts'

interface Options extends CommonOptions {
  repair?: boolean
  secretKey?: string
}

/** `btfmill verify`. Returns the exit status: 1 where something is wrong still. */
export async function run({ store, json, repair = false, secretKey }: Options): Promise<number> {
  const key = await readSecretKey(secretKey)
  let [wrong, repaired] = [0, 0]
  const findings = verifyStore(await openStore(store), { repair, ...(key && { secretKey: key }) })
  for await (const finding of findings) {
    if (finding.repaired) repaired++
    else wrong++
    const { code, message } = finding
    const line = `${code}: ${message}${finding.repaired ? ', made again' : ''}`
    console.log(json ? jsonOf(finding) : printable(line))
  }
  if (json) console.log(jsonOf({ summary: { wrong, repaired } }))
  else console.log(wrong + repaired === 0 ? 'clean' : `${wrong} wrong; ${repaired} made again`)
  return wrong === 0 ? 0 : 1
}
