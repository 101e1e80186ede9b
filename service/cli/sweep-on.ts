/*
 * Tasks of `check` and `minimize` on a service: it has the kernels and does the work, and its answer has a line for each
 * result, in the order of the kernels. Each line is checked before it is used.
 */
import { Check } from 'typebox/value'
import type { Dialect } from '../../bpf/index.ts'
import { Catalog, type KernelName, StoreError, sha256Of } from '../../storage/index.ts'
import type { FormFile, RemoteServer } from '../client/remote.ts'
import { RemoteStore } from '../client/remote-store.ts'
import { FetchError } from '../client/request.ts'
import { ServiceError } from '../error.ts'
import { type JsonText, jsonOf } from '../json.ts'
import type { KernelFacts } from '../kernel/lookup.ts'
import { parseName } from '../kernel/name.ts'
import { CheckLine, CutLine, MinimizeLine } from '../objects/lines.ts'
import type { Tasks } from '../threads/worker.ts'
import type { Swept } from './for-each-kernel.ts'
import { checkFilter, type FilterOptions, filterOf } from './input.ts'

/**
 * Runs a task for all kernels of a service that match. Errors: `too_large` for an answer that is cut; `unknown_kernel`;
 * those of `RemoteServer.lines`; `digest_mismatch`, as `FetchError`.
 */
export async function* sweepOn<K extends 'minimize' | 'check'>(
  server: RemoteServer,
  name: K,
  objects: readonly FormFile[],
  options: FilterOptions & { dialect?: Dialect; partial?: boolean },
  more: KernelFacts,
): AsyncGenerator<Swept<ReturnType<Tasks[K]>>> {
  const query = {
    ...filterOf(options),
    ...(options.dialect && { dialect: options.dialect }),
    ...(more.allPrograms && { 'all-programs': true }),
    ...(options.partial && { partial: 'allow' }),
  }
  const lines = whole(server, server.lines(`v1/${name}`, { query, objects }))
  const swept = name === 'check' ? checked(server, lines, objects) : minimized(server, lines)
  try {
    yield* swept as AsyncGenerator<Swept<ReturnType<Tasks[K]>>>
  } catch (error) {
    await explainNoKernel(server, options, error)
    throw error
  }
}

/** Names the filter because of which no kernel matches, in the words of the command line. Errors: `unknown_kernel`. */
export async function explainNoKernel(
  server: RemoteServer,
  options: FilterOptions,
  error: unknown,
): Promise<void> {
  if (!(error instanceof ServiceError) || error.code !== 'unknown_kernel') return
  const catalog = await Catalog.open(new RemoteStore(server))
  checkFilter(catalog, filterOf(options), server.origin)
}

/** The lines of an answer. Errors: `too_large` if it is cut; `invalid_response` if it has none. */
async function* whole(
  server: RemoteServer,
  lines: AsyncIterable<unknown>,
): AsyncGenerator<unknown> {
  let count = 0
  for await (const line of lines) {
    if (Check(CutLine, line)) throw new ServiceError('too_large', line.error.message)
    count++
    yield line
  }
  if (count === 0) throw server.invalid('it has no lines')
}

/** Gathers the lines of each kernel, one for each object. */
async function* checked(
  server: RemoteServer,
  lines: AsyncIterable<unknown>,
  objects: readonly FormFile[],
): AsyncGenerator<Swept<JsonText[]>> {
  let value: JsonText[] = []
  let kernel = { name: '' }
  for await (const line of lines) {
    if (!Check(CheckLine, line)) throw server.invalid('a line is not the result of a check')
    const { object, kernel: name, build, ...result } = line
    const isWhole = result.error || (result.verdict && result.reasons && result.programs)
    if (!isWhole) throw server.invalid('a line has neither a verdict nor an error')
    const named = { name, ...(build !== undefined && { build }) }
    if (value.length === 0) kernel = named
    if (!isExpected(object, objects[value.length]!.name) || jsonOf(named) !== jsonOf(kernel))
      throw server.invalid('its lines are not in the order of kernels and objects')
    value.push(jsonOf(result))
    if (value.length < objects.length) continue
    yield { kernel, of: 0, value }
    value = []
  }
  if (value.length > 0) throw server.invalid('it ends before the last object')
}

/** A service keeps the beginning of a long name only, without control characters. */
const isExpected = (name: string, sent: string): boolean =>
  name === sent || (name !== '' && sent.replace(/\p{Cc}/gu, '?').startsWith(name))

async function* minimized(
  server: RemoteServer,
  lines: AsyncIterable<unknown>,
): AsyncGenerator<Swept<Uint8Array>> {
  for await (const line of lines) {
    if (!Check(MinimizeLine, line)) throw server.invalid('a line is not minimised BTF')
    const { kernel: name, build, sha256, of, btf, error } = line
    const kernel = { name, kernel: kernelIn(server, name), ...(build !== undefined && { build }) }
    if (error) yield { kernel, error }
    else if (btf === undefined || of === undefined)
      throw server.invalid('a line has neither BTF nor an error')
    else {
      const value = Buffer.from(btf, 'base64')
      const actual = sha256Of(value)
      if (actual !== sha256)
        throw new FetchError(
          'digest_mismatch',
          `${name}: the BTF has SHA-256 ${actual}: expected ${sha256}`,
        )
      yield { kernel, of, value }
    }
  }
}

/** The names become a path, so they are checked as names of a store are. */
function kernelIn(server: RemoteServer, text: string): KernelName {
  try {
    const kernel = parseName(text)
    if (kernel) return kernel
  } catch (error) {
    if (!(error instanceof StoreError)) throw error
  }
  throw server.invalid(`invalid kernel ${JSON.stringify(text.slice(0, 100))}`)
}
