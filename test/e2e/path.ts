// The whole path, step by step: a kernel's package → BTF in a store → served → fetched back → a CO-RE program on that
// very kernel, with types from one source after the other. The demo shows these steps, kernels.test.ts asserts what they give. A step throws
// where it did not come to what it is there for.
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
  /** bytes of the package that were read */
  read: number
  seconds: number
}

/** Generates BTF for the newest kernel that the filter leaves, and reads no more of its package than vmlinux needs. */
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
    earlyStop: true,
    onEvent(event) {
      said.push(event)
      onEvent(event)
    },
  })
  const published = said.find((event) => event.event === 'published')
  const failures = said.flatMap((event) => ('failure' in event ? [event.failure.message] : []))
  if (!published?.record.btf)
    throw new Error(`no kernel's BTF was generated\n${failures.join('\n')}`)
  const { record, read, seconds } = published
  return { record: { ...record, btf: published.record.btf }, read, seconds }
}

/**
 * Fetches a kernel's BTF into `file` as an agent would, by the kernel's name, and makes sure that it is what was
 * generated.
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
 * Makes the guest of a record's kernel below `dir`; its BTF is in the file `btf`, and in the store of that URL. With `go`
 * the Go agent is in it, too.
 */
export async function buildGuest(
  target: Target,
  { kernel, package: { version } }: BuildRecord,
  { btf, store }: Pick<AgentKernel, 'btf' | 'store'>,
  dir: string,
  { go = false } = {},
): Promise<BuiltGuest> {
  const { sysroot, busybox, vmlinuz, modules, packages } = await fetchParts(
    target,
    kernel,
    version,
    dir,
  )
  const { buildId } = kernel
  assert(buildId, "the kernel's build-id is known")
  const agent = await buildAgent(target, { ...kernel, buildId, btf, store }, sysroot, dir)
  if (go) agent.go = await buildGoAgent(target, dir)
  const initramfs = await packInitramfs({ busybox, agent, modules, ...kernel }, dir)
  const downloaded = packages.reduce((sum, pkg) => sum + pkg.size, 0)
  return { guest: { target, vmlinuz, initramfs }, downloaded }
}

/** What the agent says in each run of init.sh in which it starts, and what it was given then. */
export const RUNS: ReadonlyMap<string, { about: string; says: RegExp }> = new Map([
  ['object', { about: 'no BTF at all', says: /loaded with an object for this kernel alone/ }],
  ['bundle', { about: 'no network', says: /loaded with BTF from the bundle in this agent/ }],
  ['late', { about: 'a network that comes late', says: /loaded with BTF from the service: \S+$/m }],
  ['cache', { about: 'a cache', says: /loaded with BTF from the cache: \S+$/m }],
  ['service', { about: 'the service', says: /loaded with BTF from the service: \/tmp\/other\// }],
  ['go', { about: 'cilium/ebpf', says: /agent: attached/ }], // where the guest has it
])

/** Those of the agent in C, which is in every guest. */
export const RUNS_OF_C = [...RUNS.keys()].filter((name) => name !== 'go')

/** What libbpf says where it has no types. */
const REFUSAL = /libbpf: .*failed to find valid kernel BTF/

export interface GuestRuns {
  /** only the run without types, or only those with; else all, in one boot */
  types?: 'none' | 'some'
  onLine?: (line: string) => void
}

/** What the guest's console shows, and libbpf's words for its refusal where it was to refuse. */
export interface Booted extends Console {
  refusal?: string
}

/**
 * Boots with a server at `port` of this machine's 127.0.0.1, and makes sure that libbpf refuses where there are no
 * types, and that with types from wherever the agent reports of each process what the guest's shell says of it.
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
    assert.deepEqual(reported, expected, 'agent and shell should agree')
    assert.partialDeepStrictEqual(expected, [
      { comm: 'starter', state: 'S', cpu: 1 },
      { comm: 'witness', state: 'S', cpu: 1 },
    ])
  }
  if (types === 'some') return console
  return { ...console, refusal: refusalOf(none) }
}

/** Makes sure that libbpf refused, and says in which words. */
function refusalOf(run: Run | undefined): string {
  assert(run)
  assert.equal(run.status, 1, 'the agent should fail where there are no types')
  assert.deepEqual(run.reported, [])
  const refusal = run.said.find((line) => REFUSAL.test(line))
  assert(refusal, ['libbpf should refuse', ...run.said].join('\n'))
  return refusal
}
