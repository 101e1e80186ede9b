/* What a run came to, for people: one line, and a table of what failed by when it is worth another try. */
import type { Summary } from '../../generator/index.ts'
import { FAILURE_CODES, type FailureCode, type RetryClass } from '../../storage/index.ts'
import { columns } from './output.ts'

const NEXT_TRY: Readonly<Record<RetryClass, string>> = {
  never: 'with another btfmill or pahole',
  later: 'when the pause is over',
  now: 'with the next run',
}

/** A summary as text, without a newline at its end. */
export function summaryText(summary: Summary): string {
  const { published, skipped, postponed, failed, sourcesFailed, left, queued } = summary
  const failures = Object.values(failed).reduce((sum, count) => sum + count, 0)
  const parts = [
    `${published} published`,
    `${skipped} there already`,
    ...(postponed > 0 ? [`${postponed} failed before and not due`] : []),
    ...(failures > 0 ? [`${failures} failed`] : []),
    ...(sourcesFailed > 0 ? [`${sourcesFailed} indexes could not be read`] : []),
    ...(left > 0 ? [`${left} not begun`] : []),
    ...(queued > 0 ? [`${queued} queued`] : []),
  ]
  return [parts.join('; '), ...(failures > 0 ? ['', ...failureTable(failed)] : [])].join('\n')
}

/** By class, then by how many there are. */
function failureTable(failed: Summary['failed']): string[] {
  const rows = (Object.entries(failed) as [FailureCode, number][])
    .map(([code, count]) => ({ code, count, retry: FAILURE_CODES[code] as RetryClass }))
    .sort((a, b) => orderOf(a.retry) - orderOf(b.retry) || b.count - a.count)
  return columns([
    ['retry', 'failure', 'packages', 'next try'],
    ...rows.map(({ retry, code, count }) => [retry, code, String(count), NEXT_TRY[retry]]),
  ])
}

const orderOf = (retry: RetryClass): number => Object.keys(NEXT_TRY).indexOf(retry)
