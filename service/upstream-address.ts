/*
 * Addresses of upstreams, as settings have them: `[KIND+]URL[#catalog=URL]`. A user and a password in the URL are sent as
 * Basic authentication, a password without a user as a bearer token. They are never shown, and sent to that host alone.
 */

/** The services and archives that can be asked for BTF. */
export const UPSTREAM_KINDS = ['btfmill', 'btfhub', 'datadog', 'openanolis'] as const
export type UpstreamKind = (typeof UPSTREAM_KINDS)[number]

export const UPSTREAM_FORMS = `URLs, comma-separated, with or without the kind: ${UPSTREAM_KINDS.map((kind) => `${kind}+https://HOST`).join(', ')}`

export interface UpstreamAddress {
  /** undefined if the upstream is to be asked */
  kind: UpstreamKind | undefined
  /** ends with a slash, and has no credentials, query or fragment */
  base: string
  /** the header that holds the credentials */
  authorization?: string
  /** of Datadog: where the catalogue is, if not below the base */
  catalog?: string
}

/** Parses an address; undefined if it is none. */
export function parseUpstream(text: string): UpstreamAddress | undefined {
  const [, prefix, rest = ''] = /^(?:([a-z]+)\+)?(https?:\/\/.+)$/is.exec(text.trim()) ?? []
  const kind = UPSTREAM_KINDS.find((known) => known === prefix)
  if (prefix !== undefined && !kind) return undefined
  const url = URL.parse(rest)
  if (url?.search !== '') return undefined
  const [, catalog] = /^#catalog=(https?:\/\/.+)$/i.exec(url.hash) ?? []
  if (url.hash !== '' && (catalog === undefined || !URL.canParse(catalog))) return undefined
  if (catalog !== undefined && kind !== 'datadog') return undefined
  const base = `${url.origin}${url.pathname.replace(/\/*$/, '/')}`
  const authorization = authorizationOf(url)
  return {
    kind,
    base,
    ...(authorization !== undefined && { authorization }),
    ...(catalog !== undefined && { catalog }),
  }
}

function authorizationOf({ username, password }: URL): string | undefined {
  const [user, secret] = [username, password].map(decode)
  if (user === '' && secret === '') return undefined
  if (user === '') return /^[\w~+/.=-]+$/.test(secret!) ? `Bearer ${secret}` : undefined
  return `Basic ${Buffer.from(`${user}:${secret}`).toString('base64')}`
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text // a lone percent sign
  }
}
