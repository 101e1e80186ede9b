// The guest: a distribution's kernel in QEMU, with an initramfs of busybox and a few of our files. Its user network
// reaches the host's 127.0.0.1 as 10.0.2.2.
import { readFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import * as guests from '../../generator/prove/guest.ts'
import { writeInitramfs } from '../../generator/prove/initramfs.ts'
import { type Agent, btfFetch } from './agent.ts'
import type { Target } from './target.ts'

/** The host's address in a guest; the servers listen on the host's 127.0.0.1. */
export const HOST_FROM_GUEST = '10.0.2.2'

const DIRECTORIES = ['bin', 'dev', 'etc', 'lib/modules', 'proc', 'sys', 'tmp']
const MEMORY = '256M'
const BOOT_SECONDS = 120

export interface Guest {
  target: Target
  /** paths of the kernel image and of the packed initramfs */
  vmlinuz: string
  initramfs: string
}

export interface GuestParts {
  /** path of a static busybox */
  busybox: string
  agent: Agent
  /** paths of kernel modules, in the order in which they load */
  modules: readonly string[]
  /** values of the guest's os-release */
  distro: string
  version: string
}

/** Writes the initramfs into `dir` and returns its path. */
export async function packInitramfs(parts: GuestParts, dir: string): Promise<string> {
  const script = (name: string) => join(import.meta.dirname, name)
  const paths: Record<string, string> = {
    init: script('init.sh'),
    'bin/busybox': parts.busybox,
    'bin/agent': parts.agent.program,
    'bin/btf-fetch': btfFetch,
    'bin/start.sh': script('start.sh'),
    'bin/starter': script('witness.sh'),
    'bin/witness': script('witness.sh'),
  }
  if (parts.agent.go) paths['bin/agent-go'] = parts.agent.go
  for (const object of parts.agent.objects) paths[`lib/${basename(object)}`] = object
  for (const [at, path] of parts.modules.entries())
    paths[`lib/modules/${at}-${basename(path)}`] = path // init.sh loads them in the order of their names
  const files = new Map<string, Uint8Array>()
  for (const [name, path] of Object.entries(paths)) files.set(name, await readFile(path))
  const release = `ID=${parts.distro}\nVERSION_ID="${parts.version}"\n`
  files.set('etc/os-release', Buffer.from(release))
  const initramfs = join(dir, 'initramfs')
  await writeInitramfs(initramfs, DIRECTORIES, files)
  return initramfs
}

export type BootOptions = Pick<guests.BootOptions, 'parameters' | 'onLine' | 'signal'>

/** Boots the guest with its network and waits until it shuts down. Returns the lines of its console. */
export async function boot(guest: Guest, options: BootOptions = {}): Promise<string[]> {
  const { target: machine, ...files } = guest
  const args = ['-netdev', 'user,id=net', ...machine.network]
  return await guests.boot(
    { machine, ...files },
    { ...options, args, seconds: BOOT_SECONDS, memory: MEMORY },
  )
}
