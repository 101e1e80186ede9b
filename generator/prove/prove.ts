/*
 * A proof: a kernel boots in QEMU, and a loader loads BPF objects there. Nothing of this machine's kernel is used. The
 * loader is ours, with libbpf, or the user's own. The kernel gets one boot for all objects. Lines of the guest's /init
 * begin with a random token, so that no output of a loader is taken for them.
 */
import { randomUUID } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import type { BuildRecord } from '../../storage/index.ts'
import { GeneratorError } from '../error.ts'
import { readVmlinux } from '../packages/vmlinux.ts'
import { withScratch } from '../scratch.ts'
import { boot } from './guest.ts'
import { fetchImage, type ImageOptions } from './image.ts'
import { writeInitramfs } from './initramfs.ts'
import { kept } from './kept.ts'
import { machineOf } from './machine.ts'
import { findCompiler, guestPrograms, requireQemu } from './tools.ts'
import { readUserLoader } from './user-loader.ts'

const MEMORY = '1G'
const DIRECTORIES = ['bin', 'dev', 'etc', 'proc', 'root', 'sys', 'tmp', 'var/run']
/** Paths in the guest. */
const [LOADER, OBJECTS, BTF] = ['prove/loader', 'prove/objects', 'prove/kernel.btf'] as const

export interface ProofOptions extends Omit<ImageOptions, 'modules'> {
  /** paths of BPF objects */
  objects: readonly string[]
  /** the record of a kernel, or the path of a vmlinuz */
  kernel: Pick<BuildRecord, 'kernel' | 'package' | 'origin'> | string
  /** raw BTF for a kernel that has none of its own */
  btf?: Uint8Array | undefined
  /** path of the user's own loader (default: load.c) */
  command?: string | undefined
  /** attach the programs, too; for load.c */
  attach?: boolean
  /** load programs in sections that begin with `?`, too; for load.c */
  allPrograms?: boolean
  /** give maps without a size a small one, as loaders do; for load.c */
  sizeMaps?: boolean
  /** after which the guest is killed */
  seconds: number
  /** directory that keeps images and the guest's programs (default: they are downloaded again) */
  cache?: string | undefined
  /** receives what is being done */
  onStep?: (step: string) => void
}

export interface Proof {
  /** `uname -r` in the guest */
  release: string
  /** the kernel has BTF of its own */
  ownBtf: boolean
  /** in the order of `objects` */
  objects: ObjectProof[]
}

export interface ObjectProof {
  /** path of the object */
  object: string
  /** exit status of the loader; 128 and the number of the signal that ended it */
  status: number
  /** lines that the loader wrote, to stdout and stderr */
  output: string[]
}

/**
 * Boots a kernel and loads objects in it. Errors: `unsupported_machine`; those of `fetchImage`, `readVmlinux`,
 * `requireQemu`, `findCompiler`, `guestPrograms`, `readUserLoader` and `boot`; `qemu_failed` if the kernel ended before
 * the loader.
 */
export async function prove(options: ProofOptions): Promise<Proof> {
  const { kernel, objects, btf, command, signal, mirror, onStep = () => {} } = options
  const arch = typeof kernel === 'string' ? (await readVmlinux(kernel)).arch : kernel.kernel.arch
  if (arch === undefined)
    throw new GeneratorError(
      'unsupported_machine',
      `${kernel}: the image does not tell its architecture`,
    )
  const machine = machineOf(arch)
  await requireQemu(machine, signal)
  const compiler = command === undefined ? await findCompiler(signal) : undefined
  return await withScratch(undefined, async (dir) => {
    const files = new Map<string, Uint8Array>()
    // what the user gave comes first: it fails soonest
    for (const [n, object] of objects.entries())
      files.set(`${OBJECTS}/${n}/${basename(object)}`, await readFile(object))
    if (command !== undefined)
      for (const [path, bytes] of await readUserLoader(command, machine, arch, LOADER, signal))
        files.set(path, bytes)
    const cache = options.cache ?? dir
    let vmlinuz: string
    if (typeof kernel === 'string') vmlinuz = kernel
    else {
      onStep(`fetching the image of ${kernel.kernel.release}`)
      const { distro, release } = kernel.kernel
      const name = `image-${[distro, arch, release, kernel.package.version].map(encodeURIComponent).join('-')}`
      const fill = async (into: string) => void (await fetchImage(kernel, into, options))
      vmlinuz = join(await kept(cache, name, fill), 'vmlinuz')
    }
    onStep(compiler ? 'making the loader' : 'fetching busybox')
    const programs = await guestPrograms(arch, machine, cache, { compiler, mirror, signal })
    if (programs.loader !== undefined) files.set(LOADER, await readFile(programs.loader))
    files.set('bin/busybox', await readFile(programs.busybox))
    files.set('init', Buffer.from(initOf(options)))
    if (btf) files.set(BTF, btf)
    const initramfs = join(dir, 'initramfs')
    await writeInitramfs(initramfs, DIRECTORIES, files)
    onStep('booting')
    const token = randomUUID()
    const lines = await boot(
      { machine, vmlinuz, initramfs },
      {
        seconds: options.seconds,
        memory: MEMORY,
        parameters: [`token=${token}`],
        ...(signal && { signal }),
      },
    )
    return readConsole(lines, token, objects)
  })
}

/** Process 1 of the guest. The kernel passes `token` on from its command line. */
const initOf = ({ command, attach, allPrograms, sizeMaps }: ProofOptions): string => {
  const flags = [
    ...(attach ? ['--attach'] : []),
    ...(allPrograms ? ['--all-programs'] : []),
    ...(sizeMaps ? ['--size-maps'] : []),
  ]
  const ours = `/${LOADER} ${flags.join(' ')} \${BTFMILL_BTF:+--btf "$BTFMILL_BTF"} "$object"`
  return `#!/bin/busybox sh
export PATH=/bin HOME=/root
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /tmp
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs tracefs /sys/kernel/tracing
mount -t debugfs debugfs /sys/kernel/debug
mount -t cgroup2 cgroup2 /sys/fs/cgroup
dmesg -n 1 # keep the kernel's messages off the console, except a panic
ulimit -l unlimited
ip link set lo up
secret=$token
unset token
echo
echo "$secret kernel $(uname -r)"
if [ -e /sys/kernel/btf/vmlinux ]; then echo "$secret own-btf"
elif [ -e /${BTF} ]; then export BTFMILL_BTF=/${BTF}; fi
cd /root
for object in /${OBJECTS}/*/*; do
  number=\${object#/${OBJECTS}/}
  echo "$secret begin \${number%%/*}"
  ${command === undefined ? ours : `/${LOADER} "$object"`} </dev/null 2>&1
  status=$?
  echo
  echo "$secret exit $status"
done
reboot -f
`
}

/** Reads the lines of a console. Errors: `qemu_failed` if an object has no result. */
function readConsole(lines: readonly string[], token: string, objects: readonly string[]): Proof {
  const proof = { release: '', ownBtf: false, objects: [] as ObjectProof[] }
  let output: string[] | undefined
  let object = ''
  for (const line of lines) {
    if (!line.startsWith(`${token} `)) {
      output?.push(line)
      continue
    }
    const [, word, value = ''] = line.split(' ')
    if (word === 'kernel') proof.release = value
    else if (word === 'own-btf') proof.ownBtf = true
    else if (word === 'begin') [output, object] = [[], objects[Number(value)] ?? '']
    else if (word === 'exit' && output) {
      if (output.at(-1) === '') output.pop() // the newline before this line
      proof.objects.push({ object, status: Number(value), output })
      output = undefined
    }
  }
  if (proof.objects.length === objects.length)
    return {
      ...proof,
      objects: proof.objects.sort((a, b) => objects.indexOf(a.object) - objects.indexOf(b.object)),
    }
  const log = lines.slice(-20).join('\n')
  throw new GeneratorError('qemu_failed', `the guest ended before the loader did\n${log}`, { log })
}
