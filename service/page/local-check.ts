/*
 * Checks an object where it is: in a browser. It does what threads of the service do for /v1/check, on the whole BTF of each
 * kernel, so the results are equal. BTF, names of functions and the list of kernels come in through `get`; nothing of the
 * object goes out. It uses nothing of Node's.
 */
import {
  asksForFunctions,
  type BpfObject,
  BtfError,
  checkObject,
  FunctionList,
  needsModules,
  parseBtf,
} from '../../bpf/index.ts'
import { type JsonText, jsonOf, lineOf } from '../json.ts'
import type { KernelFacts } from '../kernel/lookup.ts'
import type { CheckedKernel, KernelVerdict } from './check-page.ts'

/** A kernel to check against. A kernel whose builds have different BTF has one for each. */
export interface LocalKernel {
  readonly row: CheckedKernel
  /** its place among all kernels, as pages list them */
  readonly place: number
  /** the package version, if the kernel has several builds with different BTF */
  readonly build?: string
  /** of its raw BTF */
  readonly sha256: string
  readonly hasModules: boolean
  /** of the names of its functions */
  readonly symbols?: string
  readonly facts: KernelFacts
}

/** Gets bytes of the service by their path; undefined for 404. Errors: those of `fetch`. */
export type GetBytes = (path: string) => Promise<Uint8Array | undefined>

/** The addresses, besides `/v1/btf`, of what a check needs. */
export const LOCAL_PATHS = { functions: '/check/functions', modules: '/check/modules' } as const

/** Kernels whose BTF is fetched ahead, and modules that are fetched at a time. */
const AHEAD = 2
const MODULES_AT_ONCE = 6

export interface LocalVerdict {
  readonly kernel: LocalKernel
  readonly verdict: KernelVerdict
  /** the line that /v1/check has for it */
  readonly line: string
}

/** Checks an object against kernels, one after the other. `name` is that of its file. Errors: those of `get`. */
export async function* checkLocally(
  { name, object }: { name: string; object: BpfObject },
  kernels: readonly LocalKernel[],
  get: GetBytes,
): AsyncGenerator<LocalVerdict> {
  const fetched = new Map<number, Promise<Uint8Array>>()
  const fetchAhead = (n: number) => {
    const kernel = kernels[n]
    if (!kernel || fetched.has(n)) return
    const bytes = btfOf(kernel.sha256, get)
    bytes.catch(() => {}) // whoever awaits it gets the error
    fetched.set(n, bytes)
  }
  for (const [n, kernel] of kernels.entries()) {
    for (let ahead = 0; ahead <= AHEAD; ahead++) fetchAhead(n + ahead)
    const raw = await fetched.get(n)!
    fetched.delete(n)
    const json = await checkOne(object, kernel, raw, get)
    const parsed = JSON.parse(json)
    const { row, place, build } = kernel
    yield {
      kernel,
      verdict: {
        ...{ row, place },
        ...(build !== undefined && { build }),
        result: 'error' in parsed ? { error: parsed.error.message } : parsed,
      },
      line: lineOf({ object: name, kernel: row.name, build }, json),
    }
  }
}

/** The result for one kernel as JSON: a `Check`, or `{ error }` with a `BtfError`. Errors: those of `get`. */
async function checkOne(
  object: BpfObject,
  { row, sha256, hasModules, symbols, facts }: LocalKernel,
  raw: Uint8Array,
  get: GetBytes,
): Promise<JsonText> {
  try {
    const btf = parseBtf(raw)
    const modules =
      hasModules && needsModules(object, btf, { symbols: true })
        ? await modulesOf(row.name, sha256, get)
        : []
    const names =
      symbols !== undefined && asksForFunctions(object)
        ? await get(`${LOCAL_PATHS.functions}/${symbols}`)
        : undefined
    return jsonOf(
      checkObject(object, btf, {
        ...facts,
        modules: modules.map((bytes) => parseBtf(bytes, { base: btf })),
        ...(names && { functions: FunctionList.decode(names) }),
      }),
    )
  } catch (error) {
    if (!(error instanceof BtfError)) throw error
    return jsonOf({ error: { code: error.code, message: error.message } })
  }
}

/** Raw BTF by its digest. Errors: those of `get`; `Error` if the service has lost it. */
async function btfOf(sha256: string, get: GetBytes): Promise<Uint8Array> {
  const raw = await get(`/v1/btf/sha256/${sha256}`)
  if (raw) return raw
  throw new Error(`the service does not have the BTF ${sha256} any more`)
}

/** The BTF of the modules of a build, ordered by name. Errors: those of `btfOf`. */
async function modulesOf(name: string, sha256: string, get: GetBytes): Promise<Uint8Array[]> {
  const list = await get(`${LOCAL_PATHS.modules}/${name}?sha256=${sha256}`)
  const digests: string[] = list ? JSON.parse(new TextDecoder().decode(list)) : []
  const modules: Uint8Array[] = []
  for (let n = 0; n < digests.length; n += MODULES_AT_ONCE) {
    const some = digests.slice(n, n + MODULES_AT_ONCE)
    modules.push(...(await Promise.all(some.map((digest) => btfOf(digest, get)))))
  }
  return modules
}
