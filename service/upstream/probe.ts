/*
 * Finds out what an upstream is, if its address does not say so. A btfmill has records, Datadog's server a catalogue of
 * digests, OpenAnolis' mirror a directory of its own. Any other server is taken for a btfhub-archive.
 */
import type { UpstreamAddress, UpstreamKind } from '../upstream-address.ts'
import { getterOf } from './source.ts'

/** Bytes of a page that tells the kind: a catalogue is not read whole. */
const MAX_PAGE = 256 * 1024

/** The kind of an upstream. Errors: those of `getFrom`. */
export async function probeKind(
  address: UpstreamAddress,
  signal: AbortSignal,
): Promise<UpstreamKind> {
  if (address.base.endsWith('/btf/')) return 'openanolis'
  const get = getterOf(address)
  const limit = MAX_PAGE
  const kernels = await get('v1/kernels?limit=1', { signal, limit })
  if (kernels.status === 200 && isKernels(kernels.body)) return 'btfmill'
  // 401: a private btfmill, which asks for a token
  if (kernels.status === 401 && /"code":"unauthorized"/.test(kernels.body.toString()))
    return 'btfmill'
  const folder = address.base.endsWith('/btfs/') ? '' : 'btfs/'
  // the first byte is enough, and a server without ranges sends more
  const catalogue = await get(`${folder}catalog.json`, {
    signal,
    limit: 16 * 1024 * 1024,
    headers: { range: 'bytes=0-0' },
  })
  if ([200, 206].includes(catalogue.status) && /^\s*\{/.test(catalogue.body.toString('latin1')))
    return 'datadog'
  const mirror = await get('coolbpf/btf/', { signal, limit })
  return mirror.status === 200 ? 'openanolis' : 'btfhub'
}

function isKernels(body: Buffer): boolean {
  try {
    return Array.isArray(JSON.parse(body.toString('utf8')).kernels)
  } catch {
    return false
  }
}
