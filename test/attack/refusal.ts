/* Attacks that must end with a coded error, soon, and with little memory. */
import { mib } from '../bench/measure.ts'
import type { Finding } from './attack.ts'

const MIB = 2 ** 20
const SECONDS = 90
const MEMORY = 640 * MIB

/** Runs an attack. It holds if it fails with one of the codes; `undefined` stands for a success. */
export async function refusal(
  what: string,
  codes: readonly (string | undefined)[],
  attack: () => Promise<unknown>,
): Promise<Finding> {
  const [began, before] = [performance.now(), process.memoryUsage().rss]
  let peak = before
  const sampling = setInterval(() => {
    peak = Math.max(peak, process.memoryUsage().rss)
  }, 20)
  const ended = await attack().then(
    () => ({ code: undefined, message: '' }),
    (error: { code?: string; message: string }) => ({
      code: error.code ?? 'no code',
      message: error.message,
    }),
  )
  clearInterval(sampling)
  const [seconds, memory] = [(performance.now() - began) / 1000, peak - before]
  const coded = codes.includes(ended.code)
  return told({
    what,
    measured: `${ended.code ?? 'done'}${coded ? '' : ` (${ended.message.slice(0, 200)})`}, ${seconds.toFixed(1)} s, ${mib(memory)}`,
    bound: codes.map((code) => code ?? 'done').join(' or '),
    holds: coded && seconds < SECONDS && memory < MEMORY,
  })
}

/** A finding without a measure: a condition that must be true. */
export const condition = (
  what: string,
  holds: boolean,
  measured = holds ? 'so' : 'not so',
): Finding => told({ what, measured, bound: 'so', holds })

/** Prints a finding when it is made: the table comes at the end. */
function told(finding: Finding): Finding {
  console.error(`${finding.holds ? 'holds' : 'BROKEN'}: ${finding.what}: ${finding.measured}`)
  return finding
}
