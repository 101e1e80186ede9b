/*
 * Pages from templates. A page is a value: what its template shows is also the answer for clients that ask for JSON. Eta
 * escapes what `<%= %>` writes; `<%~ %>` writes HTML, and templates use it for parts that were rendered before.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Eta } from 'eta'
import { ASSETS } from './assets.ts'
import { type RenderTemplate, renderPart } from './helpers.ts'

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

const TEMPLATES = join(import.meta.dirname, 'templates')

const eta = new Eta({
  views: TEMPLATES,
  cache: true,
  autoEscape: true,
  autoTrim: [false, 'nl'],
  varName: 'it',
})

const render: RenderTemplate = (template, data) => eta.render(template, data)

/** The source of a module that renders some templates without `eval`: its export `render`. `./eta.js` is Eta. */
export function templatesModule(names: readonly string[]): string {
  const defined = names.map((name) => {
    const body = eta.compileToString(readFileSync(join(TEMPLATES, `${name}.eta`), 'utf8'))
    return `eta.loadTemplate(${JSON.stringify(name)}, function (it, options) {\n${body}\n})\n`
  })
  return `import { Eta } from './eta.js'\nconst eta = new Eta()\n${defined.join('')}export const render = eta.render.bind(eta)\n`
}

/** Renders a page as an HTML document; `base` is the service's address. */
export function renderPage(page: Page, base: string): string {
  const body = renderPart(render, page.template, page.view, base)
  return render('frame', { page, base, body, assets: ASSETS })
}
