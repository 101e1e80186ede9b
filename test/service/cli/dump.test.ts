// btfmill dump: BTF of files and of kernels of a store, as C and as JSON.
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import t from 'tap'
import { type BtfType, encodeBtf } from '../../../bpf/index.ts'
import { blobKey } from '../../../storage/index.ts'
import { MAIN, run, storeOf } from '../../helpers/command.ts'
import { littleKernels } from '../../helpers/core.ts'
import { fixtureFolder } from '../../helpers/fixtures.ts'

const directory = t.testdir()
const x86 = littleKernels().get('x86_64')!
const store = await storeOf(join(directory, 'store'), [
  { machine: 'x86_64', release: '6.1.0-1' },
  { machine: 's390x', release: '6.1.0-1+deb12' },
  { machine: 'x86_64', release: '6.1.0-2', version: '1' },
  { machine: 'i686', arch: 'x86_64', release: '6.1.0-2', version: '2' },
])

t.test(
  'dump prints C that compiles, for raw BTF, for ELF and for a kernel under any name of its architecture',
  async (t) => {
    const [file, elf, kernel] = await Promise.all([
      run('dump', x86),
      run('dump', join(fixtureFolder, 'types-bpfel.o')),
      run('dump', 'debian/12/amd64/6.1.0-1', '--store', store),
    ])
    for (const { status, stdout, stderr } of [file, elf, kernel]) {
      t.equal(status, 0)
      t.equal(stderr, '')
      execFileSync('clang', ['--target=bpf', '-fsyntax-only', '-Wno-everything', '-x', 'c', '-'], {
        input: stdout,
      })
    }
    t.equal(kernel.stdout, file.stdout)
    t.match(file.stdout, /^#ifndef __VMLINUX_H__\n[\s\S]*\nstruct task_struct \{\n[\s\S]*\n#endif/)
  },
)

t.test(
  'dump --type prints a struct as pahole does, and any other type as its declaration',
  async (t) => {
    const typed = (type: string, what = x86) => run('dump', what, '--store', store, '--type', type)
    const [struct, big, typedef, none] = await Promise.all([
      typed('struct list_head'),
      typed('list_head', 'debian/12/s390x/6.1.0-1+deb12'),
      typed('pid_t'),
      typed('nothing'),
    ])
    t.equal(struct.status, 0)
    t.match(struct.stdout, /^struct list_head \{\n\tstruct list_head \*next; +\/\* +0 +8 \*\/\n/)
    t.match(struct.stdout, /\n\t\/\* size: 16, members: 2 \*\/\n\};\n$/)
    t.equal(big.stdout, struct.stdout)
    t.equal(typedef.stdout, 'typedef int pid_t;\n')
    t.match(none, { status: 1, stdout: '', stderr: `btfmill: no type nothing in ${x86}\n` })
  },
)

t.test('dump --json prints one type per line, or the type of --type', async (t) => {
  const [all, one] = await Promise.all([
    run('dump', x86, '--json'),
    run('dump', x86, '--json', '--type', 'struct list_head'),
  ])
  const types = all.stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))
  t.equal(all.status, 0)
  t.same(
    types.map(({ id }) => id),
    types.map((_, i) => i + 1),
    'every type, in order of the ids',
  )
  const list = JSON.parse(one.stdout)
  t.match(list, { kind: 'STRUCT', name: 'list_head', size: 16, members: [{ name: 'next' }, {}] })
  t.same(types[list.id - 1], list)
})

t.test('dump takes a release, a glob or newest, and lists what is ambiguous or near', async (t) => {
  const dump = (...what: string[]) => run('dump', ...what, '--type', 'list_head', '--store', store)
  const named = await Promise.all(
    ['6.1.0-1+deb12', '*+deb12', '*/*/s390x/newest', 'debian/12/x86?64/*-1'].map((what) =>
      dump(what),
    ),
  )
  for (const { status, stderr } of named) t.equal(status, 0, stderr)
  const [several, near, nearName] = await Promise.all([
    dump('6.1.0-1*'),
    dump('6.1.0-1+deb21'),
    dump('debain/12/x86_64/6.1.0-1'),
  ])
  t.match(several, {
    status: 1,
    stderr:
      'ambiguous: "6.1.0-1*" names 2 kernels: debian/12/s390x/6.1.0-1+deb12, debian/12/x86_64/6.1.0-1\n',
  })
  t.match(near, { status: 1, stderr: 'did you mean 6.1.0-1+deb12?' })
  t.match(nearName, { status: 1, stderr: 'did you mean debian/12/x86_64/6.1.0-1' })
})

t.test('dump ends quietly with 0 when its reader closes the pipe', async (t) => {
  const large = join(directory, 'large.btf')
  const types = Array.from({ length: 20_000 }, (_, i): BtfType => {
    return { kind: 'STRUCT', id: i + 1, name: `s${i}`, size: 0, flag: false, members: [] }
  })
  writeFileSync(large, encodeBtf(types))
  const child = spawn(process.execPath, [MAIN, 'dump', large], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const closed = once(child, 'close')
  child.stdout.once('data', () => child.stdout.destroy())
  t.equal(await text(child.stderr), '')
  t.same(await closed, [0, null])
})

t.test(
  'dump refuses an unknown kernel, lists the builds of an ambiguous one, and reports a lost blob',
  async (t) => {
    const { btf } = JSON.parse(
      (await run('list', '--store', store, '--json', '--arch', 's390x')).stdout,
    )
    rmSync(join(directory, 'store', blobKey(btf.sha256)))
    const dump = (what: string) => run('dump', what, '--store', store)
    const [nothing, unknown, several, lost] = await Promise.all([
      dump('nothing'),
      dump('debian/12/x86_64/7'),
      dump('debian/12/x86_64/6.1.0-2'),
      dump('debian/12/s390x/6.1.0-1+deb12'),
    ])
    t.match(nothing, {
      status: 1,
      stderr: 'unknown_kernel: "nothing" is not a file and names no kernel: expected DISTRO/',
    })
    t.match(unknown, {
      status: 1,
      stderr: 'unknown_kernel: "debian/12/x86_64/7" is not a file and names no kernel',
    })
    t.match(several, {
      status: 1,
      stderr: /ambiguous: debian\/12\/x86_64\/6\.1\.0-2 has several builds .* versions 2, 1\n$/,
    })
    t.match(lost, { status: 1, stderr: 'btfmill: not_found: ' })
    t.match(await run('dump'), { status: 2, stderr: "missing required argument 'kernel'" })
  },
)
