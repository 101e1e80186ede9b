// Guests on machines whose KVM does not work. The programs in place of QEMU are shell scripts.
import { chmodSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { boot } from '../../../generator/prove/guest.ts'
import { MACHINES } from '../../../generator/prove/machine.ts'

/** A machine whose QEMU runs `withKvm` with KVM, and writes a line to the console without. */
function machineOf(directory: string, withKvm: string) {
  const program = join(directory, 'qemu')
  const script = `#!/bin/sh
echo "$@" >> ${join(directory, 'calls')}
for argument; do case $argument in file:*) console=\${argument#file:};; esac; done
case "$*" in *"-accel kvm"*) ${withKvm};; *) echo booted > "$console";; esac
`
  writeFileSync(program, script)
  chmodSync(program, 0o755)
  return { ...MACHINES.x86_64, qemu: { ...MACHINES.x86_64.qemu, program } }
}

const attempt = (directory: string, withKvm: string) =>
  boot(
    {
      machine: machineOf(directory, withKvm),
      vmlinuz: 'vmlinuz',
      initramfs: join(directory, 'initramfs'),
    },
    { seconds: 20, memory: '1M', accelerators: ['kvm', 'tcg'], kvmSeconds: 1 },
  )

const accelerators = (directory: string) =>
  readFileSync(join(directory, 'calls'), 'utf8').match(/(?<=-accel )\w+/g)

t.test('a guest that hangs with KVM is booted again without', async (t) => {
  const directory = t.testdir()
  t.same(await attempt(directory, 'exec sleep 60'), ['booted'])
  t.same(accelerators(directory), ['kvm', 'tcg'])
})

t.test('a guest whose QEMU fails with KVM is booted again without', async (t) => {
  const directory = t.testdir()
  t.same(await attempt(directory, 'exit 1'), ['booted'])
  t.same(accelerators(directory), ['kvm', 'tcg'])
})

t.test('a guest that works with KVM is booted once', async (t) => {
  const directory = t.testdir()
  t.same(await attempt(directory, 'echo with KVM > "$console"'), ['with KVM'])
  t.same(accelerators(directory), ['kvm'])
})

t.test('a guest that fails after it wrote a line is not booted again', async (t) => {
  const directory = t.testdir()
  const failing = attempt(directory, 'echo Kernel panic > "$console"; exit 1')
  await t.rejects(failing, { code: 'qemu_failed', message: /exit status 1[\s\S]*Kernel panic/ })
  t.same(accelerators(directory), ['kvm'])
})
