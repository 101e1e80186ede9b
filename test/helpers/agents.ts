/*
 * Agents that download BTF from other services, replayed step by step from their source: ptcpdump (internal/btf/btf.go),
 * kyanos (agent/loader), Datadog's agent (pkg/ebpf, BTF by remote configuration), LoongCollector's installer
 * (loongcollector.sh, check_or_prepare_vmlinux), and scripts with wget, such as Tracee's. The HTTP client of the first three
 * is Go's: it requests gzip, decodes it, follows redirects, and sends names in URLs unescaped.
 */
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { promisify } from 'node:util'
import { gunzipSync } from 'node:zlib'
import type { Test } from 'tap'
import { extract } from 'tar-stream'
import { ask } from './test-service.ts'

const run = promisify(execFile)

/** A directory that is removed with its test. */
export function temporaryDirectory(t: Test): string {
  const directory = mkdtempSync(join(tmpdir(), 'agent-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  return directory
}

/** A machine as these agents see it: os-release, `uname -r`, and Go's name for the architecture. */
export interface Machine {
  id: string
  versionId: string
  release: string
  goarch: 'amd64' | 'arm64'
}

/** The architecture in paths of archives. */
export const archiveArchOf = ({ goarch }: Machine): string =>
  goarch === 'amd64' ? 'x86_64' : goarch

/** The architecture as `uname -m` has it. */
export const unameArchOf = ({ goarch }: Machine): string =>
  goarch === 'amd64' ? 'x86_64' : 'aarch64'

/** Go's http.Get; any status but 200 is an error for these agents. */
async function httpGet(url: string): Promise<Buffer> {
  const { status, headers, bytes } = await ask(url, {
    'user-agent': 'Go-http-client/1.1',
    'accept-encoding': 'gzip',
  })
  if (status !== 200) throw new Error(`status code is not 200: ${status}`)
  return headers['content-encoding'] === 'gzip' ? gunzipSync(bytes) : bytes
}

/** The first regular file of a tar that ends with `.btf`. */
export async function btfInTar(tar: Buffer): Promise<Buffer> {
  const reader = extract()
  reader.end(tar)
  for await (const entry of reader) {
    const { type, name } = entry.header
    if (type === 'file' && name.endsWith('.btf')) return await buffer(entry)
    entry.resume()
  }
  throw new Error('no BTF in it')
}

export async function unxz(t: Test, bytes: Buffer): Promise<Buffer> {
  const file = join(temporaryDirectory(t), 'file.xz')
  writeFileSync(file, bytes)
  return (await run('xz', ['-dc', file], { encoding: 'buffer', maxBuffer: 1e9 })).stdout
}

/**
 * How ptcpdump and kyanos search BTF: OpenAnolis' mirror, then BTFHub. Gives what they load; `steps` gets where they looked.
 */
export async function loadLikePtcpdump(
  t: Test,
  server: string,
  machine: Machine,
  steps: string[] = [],
): Promise<Buffer> {
  const { id, versionId, release } = machine
  try {
    steps.push('OpenAnolis')
    return await httpGet(`${server}/coolbpf/btf/${unameArchOf(machine)}/vmlinux-${release}`)
  } catch {
    steps.push('BTFHub')
    const path = `${id}/${versionId}/${archiveArchOf(machine)}/${release}.btf.tar.xz`
    return await btfInTar(await unxz(t, await httpGet(`${server}/${path}`)))
  }
}

/** How LoongCollector gets a file with curl: from SysOM's bucket, or from OpenAnolis' mirror. */
export async function loadLikeLoongCollector(
  t: Test,
  server: string,
  machine: Machine,
  directory: string,
): Promise<Buffer> {
  const file = join(temporaryDirectory(t), 'vmlinux')
  const url = `${server}/${directory}/${unameArchOf(machine)}/vmlinux-${machine.release}`
  await run('curl', ['--silent', '--fail', '--output', file, url])
  return readFileSync(file)
}

/** How scripts get an archive of BTFHub: `wget --spider` finds it, `wget` downloads it, and tar unpacks it. */
export async function loadLikeScripts(t: Test, server: string, machine: Machine): Promise<Buffer> {
  const { id, versionId, release } = machine
  const directory = temporaryDirectory(t)
  const url = `${server}/${id}/${versionId}/${archiveArchOf(machine)}/${release}.btf.tar.xz`
  await run('wget', ['--quiet', '--spider', url])
  await run('wget', ['--quiet', '--directory-prefix', directory, url])
  await run('tar', ['xf', `${release}.btf.tar.xz`], { cwd: directory })
  return readFileSync(join(directory, `${release}.btf`))
}

/** The catalogue's architectures by Go's names, and the content of a configuration. */
export type Catalogue = Record<
  string,
  Record<string, Record<string, Record<string, { sha256: string }>>>
>

/**
 * Datadog's agent accepts an archive only with the catalogue's digest; then it unpacks it and loads `<K>/<K>.btf`. It asks
 * for the version that the catalogue has.
 */
export async function loadLikeDatadog(
  t: Test,
  server: string,
  machine: Machine,
  catalogue: Catalogue,
): Promise<Buffer> {
  const { id, versionId, release } = machine
  const arch = archiveArchOf(machine)
  const entry = catalogue[arch]?.[id]?.[versionId]?.[release]
  if (!entry) throw new Error('no entry')
  const archive = await httpGet(`${server}/btfs/${id}/${versionId}/${arch}/${release}.btf.tar.xz`)
  const sha256 = createHash('sha256').update(archive).digest('hex')
  if (sha256 !== entry.sha256) throw new Error(`hash mismatch: ${sha256}, not ${entry.sha256}`)
  const directory = join(temporaryDirectory(t), release)
  mkdirSync(directory)
  writeFileSync(join(directory, 'archive'), archive)
  await run('tar', ['-xJf', join(directory, 'archive'), '-C', directory])
  return readFileSync(join(directory, `${release}.btf`))
}
