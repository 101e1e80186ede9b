/*
 * The URL of an S3 store, `s3://BUCKET/PREFIX?PARAMETERS`. It is shown to people and written to logs, so it has no
 * credentials. The SDK finds those in the environment, a profile or the machine's role.
 */
import { StoreError } from './error.ts'
import { isKey } from './name.ts'

export interface S3Location {
  bucket: string
  /** the prefix of every key: empty, or segments with a final slash */
  prefix: string
  /** the server's URL, if it is not AWS */
  endpoint?: string
  region?: string
  /** whether the bucket is in the path, not in the host name */
  pathStyle: boolean
  /** longest time without a byte from the server, in milliseconds */
  timeout: number
}

const PARAMETERS = {
  endpoint: /^https?:\/\/[^/?#@\s]+(\/[^?#@\s]*)?$/,
  region: /^[A-Za-z0-9-]{1,64}$/,
  'path-style': /^(true|false)$/,
  timeout: /^(?=.*[1-9])\d{1,4}(\.\d{1,3})?$/,
} as const

/** The valid values, for people. */
const PARAMETER_FORMS: Record<keyof typeof PARAMETERS, string> = {
  endpoint: 'an HTTP URL without query, fragment and credentials',
  region: 'at most 64 letters, digits and hyphens',
  'path-style': 'true or false',
  timeout: 'seconds from 0.001 to 9999.999',
}

type Parameters = { [name in keyof typeof PARAMETERS]?: string }

const BUCKET = /^[A-Za-z0-9][A-Za-z0-9._-]{1,254}$/
/** The default timeout, in seconds. */
const DEFAULT_TIMEOUT = '30'

/**
 * Parses the part after `s3:`, `//BUCKET/PREFIX?endpoint=URL&region=NAME&path-style=BOOLEAN&timeout=SECONDS`. With an
 * endpoint, `path-style` is true by default, since few such servers have a host name for each bucket. Errors:
 * `unsupported` for an invalid URL; the message repeats no part that may be secret.
 */
export function parseS3Url(rest: string): S3Location {
  const url = URL.parse(`s3:${rest}`)
  if (url?.username !== '' || url.password !== '' || url.hash !== '')
    throw invalidUrl(
      'expected s3://BUCKET/PREFIX without credentials; those belong in the environment or a profile',
    )
  if (url.port !== '' || !BUCKET.test(url.hostname))
    throw invalidUrl('expected a bucket name after s3://')
  const prefix = url.pathname.replace(/^\/+|\/+$/g, '')
  if (prefix !== '' && !isKey(prefix)) throw invalidUrl('expected a prefix that is a valid key')
  const { endpoint, region, timeout = DEFAULT_TIMEOUT, 'path-style': style } = readParameters(url)
  if (endpoint !== undefined && !URL.canParse(endpoint))
    throw invalidUrl('expected an HTTP URL as endpoint')
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
    if (!form)
      throw invalidUrl(`expected only the parameters ${Object.keys(PARAMETERS).join(', ')}`)
    if (searchParams.getAll(name).length > 1)
      throw invalidUrl(`expected the parameter ${name} once`)
    if (!form.test(value))
      throw invalidUrl(
        `the parameter ${name} has an invalid value: expected ${PARAMETER_FORMS[name as keyof Parameters]}`,
      )
  }
  return Object.fromEntries(searchParams)
}

const invalidUrl = (reason: string): StoreError =>
  new StoreError('unsupported', `invalid S3 store URL: ${reason}`)
