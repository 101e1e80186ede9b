// The whole path, step by step: a kernel's package → BTF in a store → served → fetched → a CO-RE program on that kernel,
// with BTF from one source after the other. The demo shows these steps; kernels.test.ts asserts their results. A step
// throws if it does not reach its goal.
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { type GenerateEvent, generate } from '../../generator/index.ts'
import type { BuildRecord, KernelFilter, Store } from '../../storage/index.ts'
import { type AgentKernel, buildAgent, buildGoAgent } from './agent.ts'
import { btfmill, type Server } from './btfmill.ts'
import { type Console, type Run, readConsole } from './console.ts'
import { boot, type Guest, HOST_FROM_GUEST, packInitramfs } from './guest.ts'
import { fetchParts } from './parts.ts'
import type { Target } from './target.ts'

export interface Generated {
  record: BuildRecord & Required<Pick<BuildRecord, 'btf'>>
  /** bytes read of the package */
  read: number
  seconds: number
}

/** Generates BTF for the newest kernel that matches the filter. Stops the download when vmlinux is complete. */
export async function generateNewest(
  store: Store,
  filter: KernelFilter,
  onEvent: (event: GenerateEvent) => void = () => {},
): Promise<Generated> {
  const said: GenerateEvent[] = []
  await generate({
    store,
    filter,
    limit: 1,
    from: 'debug',
    earlyStop: true,
    onEvent(event) {
      said.push(event)
      onEvent(event)
    },
  })
  const published = said.find((event) => event.event === 'published')
  const failures = said.flatMap((event) => ('failure' in event ? [event.failure.message] : []))
  if (!published?.record.btf) throw new Error(`no BTF was generated\n${failures.join('\n')}`)
  const { record, read, seconds } = published
  return { record: { ...record, btf: published.record.btf }, read, seconds }
}

/**
 * Fetches a kernel's BTF into `file` by the kernel's name, as an agent does, and asserts that it is the generated one.
 */
export async function fetchBack(
  server: Server,
  { kernel, btf }: Generated['record'],
  file: string,
): Promise<void> {
  const { distro, version, arch, release } = kernel
  const name = [
    '--distro',
    distro,
    '--distro-version',
    version,
    '--arch',
    arch,
    '--release',
    release,
  ]
  await btfmill('fetch', '--server', server.url, ...name, '-o', file)
  assert.equal(
    createHash('sha256')
      .update(await readFile(file))
      .digest('hex'),
    btf.sha256,
  )
}

export interface BuiltGuest {
  guest: Guest
  /** bytes of packages */
  downloaded: number
}

/**
 * Makes a guest with a record's kernel below `dir`. The kernel's BTF is in the file `btf` and in the store with this URL.
 * `go` adds the agent in Go.
 */
export async function buildGuest(
  target: Target,
  record: BuildRecord,
  { btf, store }: Pick<AgentKernel, 'btf' | 'store'>,
  dir: string,
  { go = false } = {},
): Promise<BuiltGuest> {
  const { kernel } = record
  const parts = await fetchParts(target, record, dir)
  const { sysroot, busybox, vmlinuz, modules, downloaded } = parts
  const { buildId } = kernel
  assert(buildId, "the kernel's build-id is known")
  const agent = await buildAgent(target, { ...kernel, buildId, btf, store }, sysroot, dir)
  if (go) agent.go = await buildGoAgent(target, dir)
  const initramfs = await packInitramfs({ busybox, agent, modules, ...kernel }, dir)
  return { guest: { target, vmlinuz, initramfs }, downloaded }
}

/** For each run of init.sh that must succeed: where the BTF comes from, and the agent's message. */
export const RUNS: ReadonlyMap<string, { about: string; says: RegExp }> = new Map([
  ['object', { about: 'no BTF at all', says: /loaded with an object for this kernel alone/ }],
  ['bundle', { about: 'no network', says: /loaded with BTF from the bundle in this agent/ }],
  ['late', { about: 'a network that comes late', says: /loaded with BTF from the service: \S+$/m }],
  ['cache', { about: 'a cache', says: /loaded with BTF from the cache: \S+$/m }],
  ['service', { about: 'the service', says: /loaded with BTF from the service: \/tmp\/other\// }],
  ['go', { about: 'cilium/ebpf', says: /agent: attached/ }], // if the guest has the agent in Go
])

/** The runs of the agent in C, which is in every guest. */
export const RUNS_OF_C = [...RUNS.keys()].filter((name) => name !== 'go')

/** libbpf's message if it finds no BTF. */
const REFUSAL = /libbpf: .*failed to find valid kernel BTF/

export interface GuestRuns {
  /** only the run without BTF, or only those with BTF (default: all, in one boot) */
  types?: 'none' | 'some'
  onLine?: (line: string) => void
}

/** The guest's console, and libbpf's message if a run had no BTF. */
export interface Booted extends Console {
  refusal?: string
}

/**
 * Boots with a server at `port` of the host's 127.0.0.1. Asserts that libbpf refuses without BTF, and that with BTF from
 * any source the agent reports each process as the guest's shell knows it.
 */
export async function bootGuest(
  guest: Guest,
  port: number,
  { types, onLine }: GuestRuns = {},
): Promise<Booted> {
  const server = `server=http://${HOST_FROM_GUEST}:${port}`
  const parameters = [server, ...(types ? [`types=${types}`] : [])]
  const console = readConsole(await boot(guest, { parameters, ...(onLine && { onLine }) }))
  const { none, ...started } = Object.fromEntries(console.runs)
  assert.equal(Object.keys(started).length > 0, types !== 'none')
  for (const [name, { status, said, reported, started: expected }] of Object.entries(started)) {
    assert.equal(status, 0, ['the agent failed', ...said].join('\n'))
    assert.match(said.join('\n'), RUNS.get(name)!.says)
    assert.deepEqual(reported, expected, 'agent and shell must agree')
    assert.partialDeepStrictEqual(expected, [
      { comm: 'starter', state: 'S', cpu: 1 },
      { comm: 'witness', state: 'S', cpu: 1 },
    ])
  }
  if (types === 'some') return console
  return { ...console, refusal: refusalOf(none) }
}

/** Asserts that libbpf refused, and returns its message. */
function refusalOf(run: Run | undefined): string {
  assert(run)
  assert.equal(run.status, 1, 'the agent must fail without BTF')
  assert.deepEqual(run.reported, [])
  const refusal = run.said.find((line) => REFUSAL.test(line))
  assert(refusal, ['libbpf must refuse', ...run.said].join('\n'))
  return refusal
}
