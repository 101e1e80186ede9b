/*
 * Connections to servers, shared by all downloads. An undici Agent keeps a pool of connections per origin, so downloads
 * from one server reuse its connections, and their number is bounded. There is one Agent per set of TLS files and
 * proxies: a connection opened with a client certificate serves only downloads with that certificate.
 */
import { createHash } from 'node:crypto'
import { Agent, EnvHttpProxyAgent } from 'undici'
import type { Proxies } from '../../storage/index.ts'

/** Connections to one origin with the same TLS files. A download that finds them all busy waits for one. */
export const MAX_CONNECTIONS = 16

/** Milliseconds until an Agent without downloads is closed: longer than undici keeps an idle connection (4 s). */
const IDLE_TIMEOUT = 10_000

/** Contents of PEM files, as node:tls names them. */
export interface TlsFiles {
  cert?: Buffer
  key?: Buffer
  ca?: Buffer
}

type SharedDispatcher = Agent | EnvHttpProxyAgent

const DIRECT: Proxies = { http: '', https: '', except: '' }

/** The use of an Agent by one download. */
export interface AgentLease {
  agent: SharedDispatcher
  /** Ends the use. Further calls do nothing. */
  release(): void
}

interface SharedAgent {
  agent: SharedDispatcher
  leases: number
  closing?: NodeJS.Timeout
}

export class HttpAgents {
  readonly #agents = new Map<string, SharedAgent>()
  readonly #idleTimeout: number

  /** `idleTimeout`: milliseconds. */
  constructor(idleTimeout = IDLE_TIMEOUT) {
    this.#idleTimeout = idleTimeout
  }

  /** The number of open Agents. */
  get size(): number {
    return this.#agents.size
  }

  /**
   * Leases the Agent for these TLS files and proxies, and opens it if need be. `timeout`: milliseconds for a connection,
   * for headers, and between two pieces of a body. The lease must be released.
   */
  acquire(tls: TlsFiles, timeout: number, proxies: Proxies = DIRECT): AgentLease {
    const key = keyOf(tls, timeout, proxies)
    const shared = this.#agents.get(key) ?? { agent: openAgent(tls, timeout, proxies), leases: 0 }
    this.#agents.set(key, shared)
    clearTimeout(shared.closing)
    shared.leases++
    let released = false
    return {
      agent: shared.agent,
      release: () => {
        if (released) return
        released = true
        if (--shared.leases === 0) this.#closeLater(key, shared)
      },
    }
  }

  #closeLater(key: string, shared: SharedAgent): void {
    shared.closing = setTimeout(() => {
      this.#agents.delete(key)
      shared.agent.close().catch(() => {}) // it has nothing to do any more
    }, this.#idleTimeout).unref()
  }
}

/** Changes when the contents of a file change, so that a renewed certificate is used at once. */
function keyOf({ cert, key, ca }: TlsFiles, timeout: number, proxies: Proxies): string {
  const digests = [cert, key, ca].map(
    (file) => file && createHash('sha256').update(file).digest('hex'),
  )
  return JSON.stringify([timeout, proxies, ...digests])
}

function openAgent(tls: TlsFiles, timeout: number, proxies: Proxies): SharedDispatcher {
  const options: Agent.Options = {
    connections: MAX_CONNECTIONS,
    // HTTP/2 would send all packages from a server through one TCP connection.
    allowH2: false,
    connect: { timeout, ...tls },
    headersTimeout: timeout,
    bodyTimeout: timeout,
  }
  const { http, https, except } = proxies
  if (http === '' && https === '') return new Agent(options)
  return new EnvHttpProxyAgent({
    ...options,
    httpProxy: http,
    httpsProxy: https,
    noProxy: except,
    // The client certificate is for the server, not for the proxy.
    requestTls: { timeout, ...tls },
    proxyTls: { timeout },
  })
}
