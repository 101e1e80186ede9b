/*
 * Where a service listens: a port of an IPv4 or IPv6 address or of a name, or a unix socket. `[::]:8080` is every
 * address of both families. A socket that a killed service left is removed when nobody answers at it.
 */
import { once } from 'node:events'
import { lstat, unlink } from 'node:fs/promises'
import { type AddressInfo, connect, type Server } from 'node:net'

/** What `--listen` takes: a port may stand alone, for this machine. */
const LISTEN = /^(?:unix:.+|(?:(?:\[[0-9A-Fa-f:.%a-z]+\]|[A-Za-z0-9.-]*):)?\d{1,5})$/

export type Address = { path: string } | { host: string; port: number }

/** The address that a text names; none for one that names none, or a port there cannot be. */
export function parseListen(text: string): Address | undefined {
  if (!LISTEN.test(text)) return undefined
  if (text.startsWith('unix:')) return { path: text.slice('unix:'.length) }
  const colon = text.lastIndexOf(':')
  const [host, port] = [text.slice(0, Math.max(colon, 0)), Number(text.slice(colon + 1))]
  if (port > 65535) return undefined
  return { host: host.replace(/^\[|\]$/g, '') || '127.0.0.1', port }
}

/** Whether only this machine reaches an address. */
export function isLocal(address: Address): boolean {
  return 'path' in address || /^(?:localhost|127\.[\d.]+|::1)$/.test(address.host)
}

/** Removes a unix socket at which nobody answers. Errors: the system's. */
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

/** Where a server listens: `http://host:port` or `unix:path`. */
export function urlOf(server: Server): string {
  const bound = server.address() as AddressInfo | string
  if (typeof bound === 'string') return `unix:${bound}`
  const { address, family, port } = bound
  return `http://${family === 'IPv6' ? `[${address}]` : address}:${port}`
}
