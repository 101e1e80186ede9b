/*
 * Connections of the client through the machine's proxies. Node's own agents do that, so the client needs no HTTP library.
 * Without a proxy, the agents that all requests in a process share are used.
 */
import { type AgentOptions, Agent as HttpAgent } from 'node:http'
import { Agent as HttpsAgent } from 'node:https'
import { findProxies } from '../../storage/index.ts'

/** by protocol and proxies */
const agents = new Map<string, HttpAgent>()

/** The agent for a URL, undefined for Node's own. Errors: those of `findProxies`. */
export async function agentFor({ protocol }: URL): Promise<HttpAgent | undefined> {
  const { http, https, except } = await findProxies()
  if (http === '' && https === '') return undefined
  const key = JSON.stringify([protocol, http, https, except])
  const known = agents.get(key)
  if (known) return known
  const proxyEnv = { http_proxy: http, https_proxy: https, no_proxy: except }
  const options: AgentOptions = { keepAlive: true, proxyEnv }
  const agent = protocol === 'https:' ? new HttpsAgent(options) : new HttpAgent(options)
  agents.set(key, agent)
  return agent
}
