/*
 * Preloaded into a process that dies while it writes. Its steps are writes of bytes to files, the calls that give files
 * their names, and requests that write to a bucket; their kind says what is written. The process kills itself with SIGKILL
 * at the nth step of a kind: half of a write is done then, a name is given or not, a request is not sent or has its answer.
 * A process that ends by itself writes how many steps of each kind it took.
 */
import { appendFileSync, writeFileSync } from 'node:fs'
import fs, { type FileHandle } from 'node:fs/promises'
import http, { type ClientRequest, type RequestOptions } from 'node:http'
import { syncBuiltinESMExports } from 'node:module'

/** What the process gets as JSON in `BTFMILL_KILLED_WRITE`. */
export interface KilledWrite {
  /** the file for the counts */
  counts: string
  /** the file to which the kind of the last step is added */
  log: string
  /** the step at which it dies */
  at?: { kind: string; n: number; after: boolean }
}

const { counts, log, at } = JSON.parse(process.env.BTFMILL_KILLED_WRITE ?? '{}') as KilledWrite
const taken: Record<string, number> = {}

/** Tells whether the process dies at this step. */
function dies(kind: string): boolean {
  const n = taken[kind] ?? 0
  taken[kind] = n + 1
  return at?.kind === kind && at.n === n
}

function die(kind: string): never {
  appendFileSync(log, `${kind}\n`)
  process.kill(process.pid, 'SIGKILL')
  for (;;); // the signal ends it
}

/** What a path is for: the folder of a store's object, or the kind of another file. */
function kindOf(path: string): string {
  if (path.endsWith('.part')) return 'part of a pack'
  return folderOf(path) ?? (path.includes('/.tmp/') ? 'temporary file' : 'cache')
}

const folderOf = (path: string): string | undefined =>
  /\/(blobs|kernels|packs|catalog)\//.exec(path)?.[1]

for (const name of ['rename', 'link'] as const) {
  const real = fs[name]
  fs[name] = async (from, to) => {
    const kind = `name in ${kindOf(String(to))}`
    const last = dies(kind)
    if (last && !at!.after) die(kind)
    await real(from, to)
    if (last) die(kind)
  }
}

const paths = new WeakMap<FileHandle, string>()
const open = fs.open
fs.open = async (path, ...rest) => {
  const file = await open(path, ...rest)
  paths.set(file, String(path))
  return file
}

const probe = await open('/dev/null')
const prototype = Object.getPrototypeOf(probe) as FileHandle
await probe.close()
for (const name of ['writeFile', 'appendFile'] as const) {
  const real = prototype[name] as (bytes: Uint8Array) => Promise<void>
  prototype[name] = async function (this: FileHandle, bytes: unknown) {
    const kind = `bytes of ${kindOf(paths.get(this) ?? '')}`
    if (!(bytes instanceof Uint8Array) || !dies(kind)) return await real.call(this, bytes as never)
    await real.call(this, bytes.subarray(0, bytes.length / 2))
    die(kind)
  }
}
const send = http.request as (options: RequestOptions, ...rest: never[]) => ClientRequest
http.request = ((options: RequestOptions, ...rest: never[]) => {
  const { method = 'GET', path = '' } = options
  const kind = `${method} of ${folderOf(String(path)) ?? 'another object'}`
  if (!['PUT', 'POST', 'DELETE'].includes(method) || !dies(kind)) return send(options, ...rest)
  if (!at!.after) die(kind)
  return send(options, ...rest).once('response', () => die(kind))
}) as typeof http.request
syncBuiltinESMExports()

process.on('exit', () => writeFileSync(counts, JSON.stringify(taken)))
