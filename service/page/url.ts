/* Addresses within the pages. All of them begin with a slash, so no name can make a link leave the service. */

/** A path with the parameters that have a value. */
export function urlOf(
  path: string,
  parameters: Readonly<Record<string, string | undefined>> = {},
): string {
  const query = Object.entries(parameters)
    .filter((entry): entry is [string, string] => entry[1] !== undefined && entry[1] !== '')
    .map(([name, value]) => `${name}=${queryValue(value)}`)
  return query.length > 0 ? `${path}?${query.join('&')}` : path
}

/** Keeps slashes, so that the name of a kernel stays readable. */
const queryValue = (value: string): string => encodeURIComponent(value).replaceAll('%2F', '/')

/** The page of a type, optionally in one kernel. */
export const typeUrl = (name: string, kernel?: string): string =>
  urlOf(`/types/${encodeURIComponent(name)}`, { kernel })

/** The page of a function, optionally in one kernel. */
export const functionUrl = (name: string, kernel?: string): string =>
  urlOf(`/functions/${encodeURIComponent(name)}`, { kernel })

/** Pages of types, and pages of functions and what is called like one. */
export type PagePart = 'type' | 'function'

/** The history of a name over all kernels. */
export const historyUrl = (name: string, part: PagePart): string =>
  `${(part === 'function' ? functionUrl : typeUrl)(name)}/history`

/** The history of a member or an enumerator over all kernels. */
export const memberUrl = (name: string, member: string): string => typeUrl(`${name}.${member}`)

/** The page of a kernel, by its encoded name. */
export const kernelUrl = (name: string): string => `/kernels/${name}`

/** The differences between two kernels, by their encoded names. */
export const diffUrl = (before: string, after: string): string => `/diff/${before}..${after}`

/** The address of a service as clients write it; `http://localhost` for a Host header that is none. */
export function baseOf(protocol: string, host: string): string {
  const isHost = /^[A-Za-z0-9._-]{1,255}(?::\d{1,5})?$|^\[[0-9A-Fa-f:.]{2,64}\](?::\d{1,5})?$/.test(
    host,
  )
  return `${protocol === 'https' ? 'https' : 'http'}://${isHost ? host : 'localhost'}`
}
