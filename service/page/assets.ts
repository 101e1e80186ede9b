/* The style sheet, the script and the icon of the pages. Their addresses have a digest, so they never change. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { sha256Of } from '../../storage/index.ts'

export interface Asset {
  /** path below the service's root */
  readonly path: string
  readonly type: string
  readonly bytes: Buffer
  readonly sha256: string
}

const TYPES = {
  'style.css': 'text/css; charset=utf-8',
  'script.js': 'text/javascript; charset=utf-8',
  'icon.svg': 'image/svg+xml',
} as const
type AssetName = keyof typeof TYPES

/** Characters of the digest in an address. */
const SHORT_DIGEST = 16

function load(name: AssetName): Asset {
  const bytes = readFileSync(join(import.meta.dirname, 'assets', name))
  const sha256 = sha256Of(bytes)
  const [stem, extension] = name.split('.')
  const path = `/assets/${stem}-${sha256.slice(0, SHORT_DIGEST)}.${extension}`
  return { path, type: TYPES[name], bytes, sha256 }
}

/** The files, by their names. */
export const ASSETS: Readonly<Record<AssetName, Asset>> = {
  'style.css': load('style.css'),
  'script.js': load('script.js'),
  'icon.svg': load('icon.svg'),
}
