// The guest: a distribution's kernel in QEMU without KVM, with an initramfs of busybox and a few of our files. It has no
// disk. Its console is a pipe, and its user network reaches the host's 127.0.0.1 as 10.0.2.2.
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { copyFile, mkdir, readdir, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { createInterface } from 'node:readline'
import { promisify } from 'node:util'
import { type Agent, btfFetch } from './agent.ts'
import type { Target } from './target.ts'

/** The host's address in a guest; the servers listen on the host's 127.0.0.1. */
export const HOST_FROM_GUEST = '10.0.2.2'

const DIRECTORIES = ['bin', 'dev', 'etc', 'lib/modules', 'proc', 'sys', 'tmp']
const MEMORY = '256M'
const CPUS = '2'
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

/** Packs the initramfs into `dir` with cpio and returns its path. */
export async function packInitramfs(parts: GuestParts, dir: string): Promise<string> {
  const root = join(dir, 'root')
  for (const directory of DIRECTORIES) await mkdir(join(root, directory), { recursive: true })
  const script = (name: string) => join(import.meta.dirname, name)
  const files: Record<string, string> = {
    init: script('init.sh'),
    'bin/busybox': parts.busybox,
    'bin/agent': parts.agent.program,
    'bin/btf-fetch': btfFetch,
    'bin/start.sh': script('start.sh'),
    'bin/starter': script('witness.sh'),
    'bin/witness': script('witness.sh'),
  }
  if (parts.agent.go) files['bin/agent-go'] = parts.agent.go
  for (const object of parts.agent.objects) files[`lib/${basename(object)}`] = object
  for (const [at, path] of parts.modules.entries())
    files[`lib/modules/${at}-${basename(path)}`] = path // init.sh loads them in the order of their names
  for (const [name, path] of Object.entries(files)) await copyFile(path, join(root, name))
  await writeFile(
    join(root, 'etc/os-release'),
    `ID=${parts.distro}\nVERSION_ID="${parts.version}"\n`,
  )

  const initramfs = join(dir, 'initramfs')
  const packing = promisify(execFile)(
    'cpio',
    ['--create', '--format=newc', '--owner=0:0', '--quiet', '--file', initramfs],
    { cwd: root },
  )
  packing.child.stdin?.end((await readdir(root, { recursive: true })).sort().join('\n'))
  await packing
  return initramfs
}

export interface BootOptions {
  /** for the kernel command line; `name=value` becomes a variable of init.sh */
  parameters?: readonly string[]
  /** receives each line of the console as it arrives */
  onLine?: (line: string) => void
  signal?: AbortSignal
}

/**
 * Boots the guest and waits until it shuts down. Returns the lines of its console. Rejects, with the last lines of the
 * console, if QEMU fails or the guest does not shut down in time; QEMU is killed then.
 */
export async function boot(guest: Guest, options: BootOptions = {}): Promise<string[]> {
  const { target } = guest
  const { parameters = [] } = options
  const late = AbortSignal.timeout(BOOT_SECONDS * 1000)
  const qemu = spawn(
    target.qemu.program,
    [
      ...['-nodefaults', '-no-user-config', '-display', 'none', '-serial', 'stdio', '-no-reboot'],
      ...['-m', MEMORY, '-smp', CPUS, ...target.qemu.args, '-netdev', 'user,id=net'],
      ...['-kernel', guest.vmlinuz, '-initrd', guest.initramfs, '-append'],
      [`console=${target.qemu.console}`, 'quiet', 'panic=-1', ...parameters].join(' '),
    ],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
      signal: options.signal ? AbortSignal.any([late, options.signal]) : late,
      killSignal: 'SIGKILL',
    },
  )
  const lines: string[] = []
  const read = async () => {
    for await (const line of createInterface({ input: qemu.stdout, crlfDelay: Infinity })) {
      lines.push(line.trimEnd())
      options.onLine?.(line.trimEnd())
    }
  }
  try {
    const [[status]] = await Promise.all([once(qemu, 'close'), read()])
    if (status !== 0) throw new Error(`it ended with status ${status}`)
  } catch (cause) {
    const why = late.aborted ? `the guest did not end within ${BOOT_SECONDS} s` : String(cause)
    const end = lines.slice(-20).join('\n')
    throw new Error(`${target.qemu.program}: ${why}\n${end}`, { cause })
  } finally {
    qemu.kill('SIGKILL')
  }
  return lines
}
