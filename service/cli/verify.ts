import { openStore, partialOf, verifyStore } from '../../storage/index.ts'
import { jsonOf } from '../json.ts'
import { type CommonOptions, readKey } from './input.ts'
import { printable } from './output.ts'

interface VerifyCommandOptions extends CommonOptions {
  repair?: boolean
  secretKey?: string
}

/**
 * `btfmill verify`. Returns the exit status: 1 if anything is still wrong. A snapshot or manifest that is only behind the
 * records is not wrong, nor is a kernel whose lost BTF the next run makes again.
 */
export async function run({
  store,
  json,
  repair = false,
  secretKey,
}: VerifyCommandOptions): Promise<number> {
  const key = await readKey(secretKey)
  const counts = { wrong: 0, behind: 0, repaired: 0, due: 0 }
  const opened = await openStore(store, { create: false })
  for (const part of [opened, partialOf(opened)]) {
    const isPartial = part !== opened
    for await (const finding of verifyStore(part, { repair, ...(key && { secretKey: key }) })) {
      const { code, message, repaired, behind, due } = finding
      counts[repaired ? 'repaired' : due ? 'due' : behind ? 'behind' : 'wrong']++
      const line = `${code}: ${message}${repaired ? ', made again' : due ? dueText(due) : ''}`
      const shown = isPartial ? { ...finding, partial: true } : finding
      console.log(json ? jsonOf(shown) : printable(isPartial ? `partial: ${line}` : line))
    }
  }
  console.log(json ? jsonOf({ summary: counts }) : textOf(counts))
  return counts.wrong === 0 ? 0 : 1
}

/** Says which kernels the next run makes again. */
const dueText = (releases: readonly string[]): string =>
  releases.length > 0 ? `, due again: ${releases.join(', ')}` : ', set aside'

function textOf({
  wrong,
  behind,
  repaired,
  due,
}: Record<'wrong' | 'behind' | 'repaired' | 'due', number>): string {
  const isClean = wrong + repaired + due === 0
  const again = due > 0 ? `; ${due} made again by the next \`btfmill generate\`` : ''
  const counts = isClean ? 'clean' : `${wrong} wrong; ${repaired} made again${again}`
  if (behind === 0) return counts
  return `${counts}; ${behind} behind the records: the end of the next run, or --repair, updates that`
}
