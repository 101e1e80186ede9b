/*
 * The proxies through which this machine reaches HTTP servers: those of HTTP_PROXY, HTTPS_PROXY and NO_PROXY, in lower or
 * upper case, as curl and Go read them. If none of these names a proxy, apt's own proxy is used: on many machines it is the
 * only one that is set. A variable that is set to nothing means no proxy. Loopback addresses are always asked directly,
 * because a proxy would take them for its own.
 */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { StoreError } from './error.ts'

/** URLs of proxies; empty for a direct connection. */
export interface Proxies {
  /** for http: URLs */
  http: string
  /** for https: URLs (default: that for http:, as in apt) */
  https: string
  /** hosts that are asked directly, comma-separated, in the form of NO_PROXY */
  except: string
}

const LOOPBACK = 'localhost,127.0.0.1,::1,[::1]'
/** Milliseconds and bytes: it takes some 20 ms, and prints some 10 kB. */
const APT_LIMITS = { timeout: 5000, maxBuffer: 1 << 20 }

/** The proxies of this machine. Errors: `unsupported` for a proxy that is no http: or https: URL. */
export async function findProxies(): Promise<Proxies> {
  const { env } = process
  const [http, https, no] = ['http_proxy', 'https_proxy', 'no_proxy'].map(
    (name) => env[name] ?? env[name.toUpperCase()],
  )
  const isSet = http !== undefined || https !== undefined
  const found = isSet ? { http, https, except: '' } : await aptProxies()
  return {
    http: proxyUrl(found.http ?? ''),
    https: proxyUrl(found.https ?? found.http ?? ''),
    except: [LOOPBACK, no, found.except].filter(Boolean).join(),
  }
}

/** A proxy as a URL; without a scheme it is one for http, as in curl. */
function proxyUrl(text: string): string {
  if (text === '') return ''
  const url = URL.parse(/^[a-z][a-z0-9+.-]*:\/\//i.test(text) ? text : `http://${text}`)
  if (url && /^https?:$/.test(url.protocol)) return url.href
  throw new StoreError(
    'unsupported',
    'invalid HTTP_PROXY, HTTPS_PROXY or proxy of apt: expected http://HOST:PORT',
  )
}

type AptProxies = Partial<Proxies>

/** by the variables that change what apt-config prints */
const aptConfigurations = new Map<string, Promise<AptProxies>>()

function aptProxies(): Promise<AptProxies> {
  const key = `${process.env.PATH} ${process.env.APT_CONFIG}`
  const known = aptConfigurations.get(key) ?? readAptProxies()
  aptConfigurations.set(key, known)
  return known
}

async function readAptProxies(): Promise<AptProxies> {
  try {
    return parseAptProxies((await promisify(execFile)('apt-config', ['dump'], APT_LIMITS)).stdout)
  } catch {
    return {} // a machine without apt
  }
}

/** The proxies in the output of `apt-config dump` (apt-transport-http(1), `Acquire::http::Proxy`). */
function parseAptProxies(dump: string): AptProxies {
  const proxies: Record<string, string> = {}
  const except: string[] = []
  for (const [, scheme, host, value] of dump.matchAll(
    /^Acquire::(https?)::proxy(?:::([\w.-]+))? "(.*)";$/gim,
  )) {
    const isDirect = /^(DIRECT|false)?$/i.test(value!)
    if (host === undefined) proxies[scheme!.toLowerCase()] = isDirect ? '' : value!
    else if (isDirect) except.push(host)
  }
  return { ...proxies, except: except.join() }
}
