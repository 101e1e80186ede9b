/* What templates may call, and parts of pages from templates. It uses nothing of Node's: browsers render with it as well. */
import { diffUrl, functionUrl, kernelUrl, memberUrl, typeUrl, urlOf } from './url.ts'

const NUMBER = new Intl.NumberFormat('en')
const SHORT_NUMBER = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 })

const HELPERS = {
  urlOf,
  typeUrl,
  functionUrl,
  memberUrl,
  kernelUrl,
  diffUrl,
  /** 1234567 as 1,234,567 */
  number: (value: number): string => NUMBER.format(value),
  /** a number with its noun: `1 kernel`, `2 kernels` */
  count: (value: number, noun: string, plural = `${noun}s`): string =>
    `${NUMBER.format(value)} ${value === 1 ? noun : plural}`,
  /** bytes as kB, MB or GB */
  megabytes: (bytes: number): string => {
    if (bytes < 10_000) return `${NUMBER.format(bytes)} B`
    if (bytes < 1e6) return `${Math.round(bytes / 1e3)} kB`
    return bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(1)} GB`
  },
  /** 12345678 as 12M */
  short: (value: number): string => SHORT_NUMBER.format(value),
  /** the day of a time in ISO 8601 */
  day: (time: string): string => time.slice(0, 10),
  /** minutes of a time in ISO 8601, in UTC */
  minute: (time: string): string => `${time.slice(0, 10)} ${time.slice(11, 16)} UTC`,
}

/** Renders a template by its name: `render` of an `Eta`. */
export type RenderTemplate = (template: string, data: object) => string

/** Renders one template; values that it needs are in `it.view`, helpers in `it.h`, and `it.part` renders others. */
export function renderPart(
  render: RenderTemplate,
  template: string,
  view: object,
  base: string,
): string {
  const part = (name: string, of: object) => renderPart(render, name, of, base)
  return render(template, { view, base, h: HELPERS, part })
}
