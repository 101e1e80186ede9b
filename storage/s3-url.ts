/*
 * The URL of an S3 store, `s3://BUCKET/PREFIX?PARAMETERS`. It is shown to people and written to logs, so it holds no
 * secrets: credentials come from where the SDK looks for them (environment, profile, role of the machine).
 */
import { StoreError } from './error.ts'
import { isKey } from './name.ts'

export interface S3Location {
  bucket: string
  /** what every key begins with: nothing, or segments with a slash at their end */
  prefix: string
  /** where it is not AWS */
  endpoint?: string
  region?: string
  /** the bucket in the path, not in the host name */
  pathStyle: boolean
  /** longest silence of the server, in milliseconds */
  timeout: number
}

const PARAMETERS = {
  endpoint: /^https?:\/\/[^/?#@\s]+(\/[^?#@\s]*)?$/,
  region: /^[A-Za-z0-9-]{1,64}$/,
  'path-style': /^(true|false)$/,
  timeout: /^(?=.*[1-9])\d{1,4}(\.\d{1,3})?$/,
} as const

type Parameters = { [name in keyof typeof PARAMETERS]?: string }

const BUCKET = /^[A-Za-z0-9][A-Za-z0-9._-]{1,254}$/
/** In seconds. */
const TIMEOUT = '30'

/**
 * Reads what follows `s3:`, `//BUCKET/PREFIX?endpoint=URL&region=NAME&path-style=BOOLEAN&timeout=SECONDS`. Where an
 * endpoint is named the bucket is in the path unless told otherwise, since few such servers have a host name for each
 * bucket. Errors: `unsupported` for what is no such URL; the message does not repeat what could be a secret.
 */
export function parseS3Url(rest: string): S3Location {
  const url = URL.parse(`s3:${rest}`)
  if (url?.username !== '' || url.password !== '' || url.hash !== '')
    throw refusal('is s3://BUCKET/PREFIX; credentials belong in the environment or a profile')
  if (url.port !== '' || !BUCKET.test(url.hostname)) throw refusal('begins with a bucket’s name')
  const prefix = url.pathname.replace(/^\/+|\/+$/g, '')
  if (prefix !== '' && !isKey(prefix)) throw refusal('has a prefix of the form of its keys')
  const { endpoint, region, timeout = TIMEOUT, 'path-style': style } = readParameters(url)
  if (endpoint !== undefined && !URL.canParse(endpoint)) throw refusal('has a URL as its endpoint')
  return {
    bucket: url.hostname,
    prefix: prefix === '' ? '' : `${prefix}/`,
    ...(endpoint !== undefined && { endpoint }),
    ...(region !== undefined && { region }),
    pathStyle: style === undefined ? endpoint !== undefined : style === 'true',
    timeout: Number(timeout) * 1000,
  }
}

function readParameters({ searchParams }: URL): Parameters {
  for (const [name, value] of searchParams) {
    const form = Object.hasOwn(PARAMETERS, name) && PARAMETERS[name as keyof Parameters]
    if (!form) throw refusal(`has only the parameters ${Object.keys(PARAMETERS).join(', ')}`)
    if (searchParams.getAll(name).length > 1) throw refusal(`has ${name} once`)
    if (!form.test(value)) throw refusal(`has another form of ${name}`)
  }
  return Object.fromEntries(searchParams)
}

const refusal = (form: string): StoreError =>
  new StoreError('unsupported', `the URL of an S3 store ${form}`)
