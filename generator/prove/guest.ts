/*
 * A guest: a kernel in QEMU with an initramfs. It has no disk, its console is a file, and it ends by itself: QEMU runs
 * with -no-reboot, so a reboot ends it. QEMU emulates the machine, without KVM: where virtual machines are nested, KVM is there
 * but guests hang.
 */
import { open, writeFile } from 'node:fs/promises'
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

export interface Guest {
  machine: Machine
  /** paths of the kernel image and of the packed initramfs */
  vmlinuz: string
  initramfs: string
}

export interface BootOptions {
  /** after which the guest is killed */
  seconds: number
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

/**
 * Boots a guest and waits until it shuts down. Returns the lines of its console. Errors: `qemu_failed` and
 * `guest_timeout`, with the last lines of the console; the signal's reason.
 */
export async function boot(
  { machine, vmlinuz, initramfs }: Guest,
  { seconds, memory, parameters = [], args = [], onLine, signal }: BootOptions,
): Promise<string[]> {
  const { program, console } = machine.qemu
  const output = `${initramfs}.console`
  await writeFile(output, '')
  const file = await open(output)
  const lines: string[] = []
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
      ...['-m', memory, '-smp', '2', ...machine.qemu.args, ...args],
      ...['-kernel', vmlinuz, '-initrd', initramfs, '-append'],
      [`console=${console}`, 'quiet', 'panic=-1', ...parameters].join(' '),
    ],
    { seconds, signal: signal ? AbortSignal.any([signal, over.signal]) : over.signal },
  ).finally(() => {
    isRunning = false
  })
  running.catch(() => {}) // it is awaited below
  try {
    while (isRunning) {
      await readNew()
      await setTimeout(READ_INTERVAL)
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
