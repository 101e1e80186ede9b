// btfmill prove without a guest: each thing that it cannot do is an error with a code, before anything is downloaded.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import t from 'tap'
import { MAIN, run, storeOf } from '../../helpers/command.ts'
import { coreObjects } from '../../helpers/core.ts'

const object = coreObjects('el').get('task')!
const release = '6.1.0-1-amd64'
const store = await storeOf(t.testdir(), [
  { machine: 'x86_64', release },
  { machine: 'i686', release: '6.1.0-1-686' },
  { machine: 'x86_64', arch: 'ppc64le', release: '6.1.0-1-powerpc64le' },
])
const prove = (kernel: string, ...args: string[]) =>
  run('prove', object, '--store', store, '--kernel', kernel, ...args)

t.test('prove names the architectures that a guest can have', async (t) => {
  const { status, stderr } = await prove('6.1.0-1-powerpc64le')
  t.equal(status, 1)
  t.match(stderr, /^btfmill: unsupported_machine: .*ppc64le: expected one of x86_64, i686, /)
})

t.test('prove refuses a loader that the kernel does not run', async (t) => {
  const script = join(t.testdir(), 'loader.sh')
  writeFileSync(script, '#!/bin/sh\n')
  const refused = await prove(release, '--command', script)
  t.equal(refused.status, 1)
  t.match(refused.stderr, /^btfmill: invalid_loader: .*loader\.sh: expected an ELF program/m)
  const foreign = await prove('6.1.0-1-686', '--command', process.execPath)
  t.equal(foreign.status, 1)
  t.match(foreign.stderr, /^btfmill: invalid_loader: .*kernels of i686 do not run/m)
})

t.test('prove names the package of a program that is not installed', async (t) => {
  const bin = t.testdir()
  const withPath = async () => {
    const args = [MAIN, 'prove', object, '--store', store, '--kernel', release]
    const child = spawn(process.execPath, args, { env: { ...process.env, PATH: bin } })
    const [stderr, [status]] = await Promise.all([text(child.stderr), once(child, 'close')])
    return { status, stderr }
  }
  const noQemu = await withPath()
  t.equal(noQemu.status, 1)
  t.match(noQemu.stderr, /^btfmill: qemu_missing: qemu-system-x86_64 .* package qemu-system-x86 /)
  symlinkSync('/bin/true', join(bin, 'qemu-system-x86_64'))
  const noClang = await withPath()
  t.equal(noClang.status, 1)
  t.match(noClang.stderr, /^btfmill: compiler_missing: clang is not installed/)
})

t.test('prove tells which kernel it does not know', async (t) => {
  const { status, stderr } = await prove('6.1.0-2-amd64')
  t.equal(status, 1)
  t.match(stderr, /^btfmill: unknown_kernel: .*6\.1\.0-1-amd64/)
})
