import { openStore, verifyStore } from '../../storage/index.ts'
import { jsonOf } from '../json.ts'
import type { CommonOptions } from './filter.ts'
import { printable } from './output.ts'
import { readSecretKey } from './secret.ts'

interface VerifyCommandOptions extends CommonOptions {
  repair?: boolean
  secretKey?: string
}

/** `btfmill verify`. Returns the exit status: 1 where something is wrong still; what is only behind is not. */
export async function run({
  store,
  json,
  repair = false,
  secretKey,
}: VerifyCommandOptions): Promise<number> {
  const key = await readSecretKey(secretKey)
  const counts = { wrong: 0, behind: 0, repaired: 0 }
  const findings = verifyStore(await openStore(store), { repair, ...(key && { secretKey: key }) })
  for await (const finding of findings) {
    const { code, message, repaired, behind } = finding
    counts[repaired ? 'repaired' : behind ? 'behind' : 'wrong']++
    const line = `${code}: ${message}${repaired ? ', made again' : ''}`
    console.log(json ? jsonOf(finding) : printable(line))
  }
  console.log(json ? jsonOf({ summary: counts }) : told(counts))
  return counts.wrong === 0 ? 0 : 1
}

function told({
  wrong,
  behind,
  repaired,
}: Record<'wrong' | 'behind' | 'repaired', number>): string {
  const counts = wrong + repaired === 0 ? 'clean' : `${wrong} wrong; ${repaired} made again`
  if (behind === 0) return counts
  return `${counts}; ${behind} behind the records: the next run that ends makes that right, or --repair`
}
