/*
 * Addresses to listen on: a port of an IPv4 address, an IPv6 address or a host name, or a unix socket. `[::]:8080` listens
 * on every address of both families. A socket file that a killed service left behind is removed if nothing accepts
 * connections on it.
 */
import { once } from 'node:events'
import { lstat, unlink } from 'node:fs/promises'
import { type AddressInfo, connect, type Server } from 'node:net'

/** The forms of `--listen`; a port alone means 127.0.0.1. */
const LISTEN = /^(?:unix:.+|(?:(?:\[[0-9A-Fa-f:.%a-z]+\]|[A-Za-z0-9.-]*):)?\d{1,5})$/

export type Address = { path: string } | { host: string; port: number }

/** Parses an address; undefined for another form, or a port above 65535. */
export function parseListen(text: string): Address | undefined {
  if (!LISTEN.test(text)) return undefined
  if (text.startsWith('unix:')) return { path: text.slice('unix:'.length) }
  const colon = text.lastIndexOf(':')
  const [host, port] = [text.slice(0, Math.max(colon, 0)), Number(text.slice(colon + 1))]
  if (port > 65535) return undefined
  return { host: host.replace(/^\[|\]$/g, '') || '127.0.0.1', port }
}

/** Tells whether an address is reachable from this machine only. */
export function isLocal(address: Address): boolean {
  return 'path' in address || /^(?:localhost|127\.[\d.]+|::1)$/.test(address.host)
}

/** Removes the file of a unix socket that nothing listens on. Errors: the system's. */
export async function removeStale(address: Address): Promise<void> {
  if (!('path' in address)) return
  const socket = connect(address.path)
  try {
    await once(socket, 'connect')
  } catch (error) {
    const refused = (error as NodeJS.ErrnoException).code === 'ECONNREFUSED'
    if (refused && (await lstat(address.path)).isSocket()) await unlink(address.path)
  } finally {
    socket.destroy()
  }
}

/** The URL of a listening server: `http://host:port` or `unix:path`. */
export function urlOf(server: Server): string {
  const bound = server.address() as AddressInfo | string
  if (typeof bound === 'string') return `unix:${bound}`
  const { address, family, port } = bound
  return `http://${family === 'IPv6' ? `[${address}]` : address}:${port}`
}
