/*
 * Modules that run in the browser: the BPF library and what the page of a check has in common with it. There is no build:
 * in a checkout Node takes the types off the sources, and the published package has them as JavaScript. The tree is served
 * as it is, so imports between the files resolve. Its address has a digest of all files, so they never change.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { stripTypeScriptTypes } from 'node:module'
import { extname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { sha256Of } from '../../storage/index.ts'
import type { Asset } from './assets.ts'
import { templatesModule } from './render.ts'

/** `.ts` in a checkout, `.js` in the published package. */
const EXTENSION = extname(import.meta.filename)
/** The folder that has bpf/ and service/. */
const ROOT = join(import.meta.dirname, '../..')

/** Files of this service that run in a browser: they import each other and bpf/, and nothing else. */
const OWN = [
  'json',
  ...['check-page', 'heat-map', 'helpers', 'local-check', 'local-worker', 'url'].map(
    (name) => `page/${name}`,
  ),
]
const WORKER = 'local-worker'
/** Templates that a browser renders. */
const TEMPLATES = ['checked', 'heat-map']

/** Characters of the digest in an address. */
const SHORT_DIGEST = 16

export interface BrowserModules {
  /** path of the worker that checks an object, below the service's root */
  readonly worker: string
  /** The file at a path below the service's root. */
  find(path: string): Asset | undefined
}

function sources(): Map<string, string> {
  const isModule = (name: string) => name.endsWith(EXTENSION) && !name.endsWith('.d.ts')
  const library = readdirSync(join(ROOT, 'bpf')).filter(isModule).sort()
  const paths = [
    ...library.map((name) => `bpf/${name}`),
    ...OWN.map((name) => `service/${name}${EXTENSION}`),
  ]
  const eta = fileURLToPath(import.meta.resolve('eta/core'))
  return new Map([
    ...paths.map((path) => [path, readFileSync(join(ROOT, path), 'utf8')] as const),
    ['templates.js', templatesModule(TEMPLATES)],
    ['eta.js', readFileSync(eta, 'utf8').replace(/^\/\/# sourceMappingURL=.*$/m, '')],
  ])
}

function load(): BrowserModules {
  const all = sources()
  const digest = sha256Of([...all].flat().join('\0'))
  const base = `/assets/modules-${digest.slice(0, SHORT_DIGEST)}/`
  const assets = new Map<string, Asset>()
  return {
    worker: `${base}service/page/${WORKER}${EXTENSION}`,
    find: (path) => {
      const known = assets.get(path)
      const source = path.startsWith(base) ? all.get(path.slice(base.length)) : undefined
      if (known || source === undefined) return known
      const code = path.endsWith('.ts') ? stripTypeScriptTypes(source) : source
      const bytes = Buffer.from(code)
      const asset = {
        ...{ path, bytes, sha256: sha256Of(bytes) },
        type: 'text/javascript; charset=utf-8',
      }
      assets.set(path, asset)
      return asset
    },
  }
}

let modules: BrowserModules | undefined

/** The modules, read when they are first asked for. Errors: the system's. */
export function browserModules(): BrowserModules {
  modules ??= load()
  return modules
}
