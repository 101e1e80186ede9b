/*
 * A guest: a kernel in QEMU with an initramfs. It has no disk, its console is a file, and it ends by itself: QEMU runs
 * with -no-reboot, so a reboot ends it. KVM makes it much faster. Where virtual machines are nested, KVM may be there but
 * guests hang, so one that stays silent is booted again with QEMU's emulator (TCG).
 */
import { access, constants, open, writeFile } from 'node:fs/promises'
import { setTimeout } from 'node:timers/promises'
import { GeneratorError } from '../error.ts'
import { runChild } from '../subprocess.ts'
import type { Machine } from './machine.ts'

/** Bytes of the console. */
const MAX_CONSOLE = 64 * 1024 ** 2
/** Milliseconds between two looks at the console. */
const READ_INTERVAL = 100
/** Lines of the console that an error shows. */
const SHOWN = 20
/** Seconds after which a guest with KVM has written a line; it takes one or two. */
const KVM_SECONDS = 10

export interface Guest {
  machine: Machine
  /** paths of the kernel image and of the packed initramfs */
  vmlinuz: string
  initramfs: string
}

export type Accelerator = 'kvm' | 'tcg'

export interface BootOptions {
  /** after which the guest is killed */
  seconds: number
  /** tried in this order (default: KVM if this machine has it, then TCG) */
  accelerators?: readonly Accelerator[]
  /** in which a guest with KVM must write its first line (default: 10) */
  kvmSeconds?: number
  /** as QEMU writes it, such as 256M */
  memory: string
  /** for the kernel command line; `name=value` becomes an environment variable of /init */
  parameters?: readonly string[]
  /** for QEMU, such as a network card */
  args?: readonly string[]
  /** receives each line of the console as it arrives */
  onLine?: (line: string) => void
  signal?: AbortSignal
}

/** True once a guest has hung: others would, too. */
let hangsWithKvm = false

/**
 * Boots a guest and waits until it shuts down. Returns the lines of its console. Errors: `qemu_failed` and
 * `guest_timeout`, with the last lines of the console; the signal's reason.
 */
export async function boot(guest: Guest, options: BootOptions): Promise<string[]> {
  const accelerators = options.accelerators ?? (await acceleratorsOf(guest.machine))
  for (const accelerator of accelerators) {
    const isLast = accelerator === accelerators.at(-1)
    const lines: string[] = []
    try {
      return await bootOnce(guest, { ...options, accelerator, lines, isLast })
    } catch (error) {
      options.signal?.throwIfAborted()
      if (isLast || lines.length > 0) throw error
      hangsWithKvm = true
    }
  }
  throw new GeneratorError('qemu_failed', 'no accelerator for the guest')
}

async function acceleratorsOf({ kvm }: Machine): Promise<Accelerator[]> {
  if (kvm !== process.arch || hangsWithKvm) return ['tcg']
  const mode = constants.R_OK | constants.W_OK
  return access('/dev/kvm', mode).then<Accelerator[], Accelerator[]>(
    () => ['kvm', 'tcg'],
    () => ['tcg'],
  )
}

interface Attempt extends BootOptions {
  accelerator: Accelerator
  /** the lines of the console are added here */
  lines: string[]
  /** no other accelerator is tried after it, so it may stay silent */
  isLast: boolean
}

async function bootOnce(
  { machine, vmlinuz, initramfs }: Guest,
  { seconds, memory, parameters = [], args = [], onLine, signal, ...attempt }: Attempt,
): Promise<string[]> {
  const { accelerator, kvmSeconds = KVM_SECONDS, lines, isLast } = attempt
  const { program, console, tcgArgs = [] } = machine.qemu
  const output = `${initramfs}.console`
  await writeFile(output, '')
  const file = await open(output)
  let [rest, size] = ['', 0]
  const over = new AbortController()
  const take = (piece: string) => {
    const line = Buffer.from(piece, 'latin1').toString().trimEnd()
    lines.push(line)
    onLine?.(line)
  }
  const readNew = async () => {
    for (;;) {
      const { bytesRead, buffer } = await file.read()
      if (bytesRead === 0) return
      size += bytesRead
      if (size > MAX_CONSOLE) {
        const message = `the guest wrote more than ${MAX_CONSOLE} bytes to its console`
        return over.abort(new GeneratorError('qemu_failed', message))
      }
      const pieces = (rest + buffer.toString('latin1', 0, bytesRead)).split('\n')
      rest = pieces.pop()!
      for (const piece of pieces) take(piece)
    }
  }
  let isRunning = true
  const running = runChild(
    program,
    [
      ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot'],
      // A file takes all bytes at once. A pipe that is full makes the serial port lose some.
      ...['-serial', `file:${output}`],
      ...['-accel', accelerator, '-m', memory, '-smp', '2', ...machine.qemu.args],
      ...(accelerator === 'tcg' ? tcgArgs : []),
      ...args,
      ...['-kernel', vmlinuz, '-initrd', initramfs, '-append'],
      [`console=${console}`, 'quiet', 'panic=-1', ...parameters].join(' '),
    ],
    { seconds, signal: signal ? AbortSignal.any([signal, over.signal]) : over.signal },
  ).finally(() => {
    isRunning = false
  })
  running.catch(() => {}) // it is awaited below
  const silentUntil = isLast ? Infinity : Date.now() + kvmSeconds * 1000
  try {
    while (isRunning) {
      await readNew()
      await setTimeout(READ_INTERVAL)
      if (lines.length === 0 && Date.now() > silentUntil)
        over.abort(new GeneratorError('guest_timeout', 'the guest wrote nothing'))
    }
    await readNew()
  } finally {
    await file.close()
  }
  const { ended, status, stderr } = await running
  if (rest !== '') take(rest)
  if (ended === 'status' && status === 0) return lines
  const log = lines.slice(-SHOWN).join('\n')
  if (ended === 'time') {
    const message = `the guest did not end within ${seconds.toFixed()} s`
    throw new GeneratorError('guest_timeout', `${message}\n${log}`, { log })
  }
  const how = ended === 'status' ? `exit status ${status}` : ended
  throw new GeneratorError('qemu_failed', `${program}: ${how}: ${stderr}\n${log}`, { log })
}
