// The whole path, step by step: a kernel's package → BTF in a store → served → fetched back → a CO-RE program on that
// very kernel, without BTF and with it. The demo shows these steps, kernels.test.ts asserts what they give. A step throws
// where it did not come to what it is there for.
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { type GenerateEvent, generate } from '../../generator/index.ts'
import type { BuildRecord, KernelFilter, Store } from '../../storage/index.ts'
import { buildAgent } from './agent.ts'
import { btfmill, type Server } from './btfmill.ts'
import { type Console, readConsole } from './console.ts'
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
  const name = ['--distro', distro, '--version', version, '--arch', arch, '--release', release]
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

/** Makes the guest of a record's kernel below `dir`. */
export async function buildGuest(
  target: Target,
  { kernel, package: { version } }: BuildRecord,
  dir: string,
): Promise<BuiltGuest> {
  const { sysroot, busybox, vmlinuz, modules, packages } = await fetchParts(
    target,
    kernel,
    version,
    dir,
  )
  const agent = await buildAgent(target, sysroot, dir)
  const initramfs = await packInitramfs({ busybox, agent, modules, ...kernel }, dir)
  const downloaded = packages.reduce((sum, pkg) => sum + pkg.size, 0)
  return { guest: { target, vmlinuz, initramfs }, downloaded }
}

/** Boots without external BTF and makes sure that libbpf refuses, for want of the kernel's. */
export async function bootWithoutBtf(
  guest: Guest,
  onLine?: (line: string) => void,
): Promise<Console> {
  const console = readConsole(await boot(guest, { ...(onLine && { onLine }) }))
  assert.equal(console.agentStatus, 1, 'the agent should fail where there is no BTF')
  assert.match(console.agent.join('\n'), /failed to find valid kernel BTF/)
  assert.deepEqual(console.reported, [])
  return console
}

/**
 * Boots with btf-fetch asking the server at `port` of this machine's 127.0.0.1, and makes sure that the agent reports
 * of each process what the guest's shell says of it.
 */
export async function bootWithBtf(
  guest: Guest,
  port: number,
  onLine?: (line: string) => void,
): Promise<Console> {
  const parameters = [`server=http://${HOST_FROM_GUEST}:${port}`]
  const console = readConsole(await boot(guest, { parameters, ...(onLine && { onLine }) }))
  assert.equal(
    console.agentStatus,
    0,
    ['the agent failed', ...console.fetch, ...console.agent].join('\n'),
  )
  assert.deepEqual(
    console.started.map(({ comm }) => comm),
    ['starter', 'witness'],
  )
  assert.deepEqual(console.reported, console.started, 'agent and shell should agree')
  return console
}
