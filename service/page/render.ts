/*
 * Pages from templates. A page is a value: what its template shows is also the answer for clients that ask for JSON. Eta
 * escapes what `<%= %>` writes; `<%~ %>` writes HTML, and templates use it for parts that were rendered before.
 */
import { join } from 'node:path'
import { Eta } from 'eta'
import { ASSETS } from './assets.ts'
import { diffUrl, functionUrl, kernelUrl, memberUrl, typeUrl, urlOf } from './url.ts'

/** Parts of the site that the navigation names. */
export type SitePart = 'kernels' | 'types' | 'check' | 'diff' | 'status'

export interface Page {
  /** the template's name */
  readonly template: string
  /** what a result of a search engine shows; the name of the site is added */
  readonly title: string
  readonly description: string
  /** the canonical address, without the host */
  readonly path: string
  readonly part?: SitePart
  /** whether search engines keep away from it */
  readonly unlisted?: boolean
  /** what the template shows, and the body for clients that ask for JSON */
  readonly view: object
}

const eta = new Eta({
  views: join(import.meta.dirname, 'templates'),
  cache: true,
  autoEscape: true,
  autoTrim: [false, 'nl'],
  varName: 'it',
})

const NUMBER = new Intl.NumberFormat('en')
const SHORT_NUMBER = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 })

/** What templates may call. */
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

/** Renders one template; values that it needs are in `it.view`, helpers in `it.h`. */
export function renderPart(template: string, view: object, base = ''): string {
  const render = (name: string, part: object) => renderPart(name, part, base)
  return eta.render(template, { view, base, h: HELPERS, part: render })
}

/** Renders a page as an HTML document; `base` is the service's address. */
export function renderPage(page: Page, base: string): string {
  const body = renderPart(page.template, page.view, base)
  return eta.render('frame', { page, base, body, assets: ASSETS })
}
