// btfmill diff: the differences of two files, of two kernels of a store, or of one of each.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { run, storeOf } from '../../helpers/command.ts'
import { littleKernels } from '../../helpers/core.ts'

const directory = t.testdir()
const [x86, i686] = ['x86_64', 'i686'].map((machine) => littleKernels().get(machine)!)
const store = await storeOf(join(directory, 'store'), [
  { machine: 'x86_64', release: '6.1.0-1' },
  { machine: 'i686', release: '5.10.0-1+deb11' },
])

t.test('diff prints the changed types of two files or two kernels, and ends with 1', async (t) => {
  const files = await run('diff', x86!, i686!)
  t.equal(files.status, 1)
  t.match(files.stdout, /^pointers: 8 → 4 bytes\n/)
  t.match(files.stdout, '~ struct list_head: 16 → 8 bytes\n')
  t.match(files.stdout, /\n\d+ removed, \d+ added, \d+ changed\n$/)
  t.equal(files.stderr, '')
  const kernels = ['debian/12/amd64/6.1.0-1', 'debian/12/i386/5.10.0-1+deb11']
  t.equal((await run('diff', '--store', store, ...kernels)).stdout, files.stdout)
})

t.test('diff --type takes a name with or without its tag', async (t) => {
  const { status, stdout } = await run('diff', x86!, i686!, '--type', 'struct list_head')
  t.equal(status, 1)
  t.equal(
    stdout,
    [
      'pointers: 8 → 4 bytes',
      '~ struct list_head: 16 → 8 bytes',
      '    ~ next: 8 → 4 bytes',
      '    ~ prev: at 8 → 4; 8 → 4 bytes',
      '0 removed, 0 added, 1 changed',
      '',
    ].join('\n'),
  )
  const mixed = await run(
    'diff',
    '--store',
    store,
    x86!,
    'debian/12/i686/5.10.0-1+deb11',
    '--type',
    'list_head',
  )
  t.equal(mixed.stdout, stdout)
  const none = await run('diff', x86!, i686!, '--type', 'nothing')
  t.equal(none.status, 1)
  t.match(none.stderr, 'no type nothing in ')
})

t.test('diff ends with 0 when nothing differs, in whole kernels and in one type', async (t) => {
  for (const args of [[], ['--type', 'list_head'], ['--json']]) {
    const { status, stderr } = await run('diff', x86!, x86!, ...args)
    t.equal(status, 0, args.join(' '))
    t.equal(stderr, '')
  }
})

t.test('diff --json prints the differences as one object', async (t) => {
  const { status, stdout } = await run('diff', x86!, i686!, '--json')
  t.equal(status, 1)
  const { pointerSize, changed } = JSON.parse(stdout)
  t.same(pointerSize, { old: 8, new: 4 })
  t.match(
    changed.find(({ name }: { name: string }) => name === 'list_head'),
    {
      kind: 'struct',
      size: { old: 16, new: 8 },
      members: { changed: [{ name: 'next', size: { old: 8, new: 4 } }, { name: 'prev' }] },
    },
  )
})

t.test('diff refuses what is neither BTF nor a kernel of the store', async (t) => {
  const broken = join(directory, 'broken.btf')
  writeFileSync(broken, 'no BTF')
  for (const [what, message] of [
    [
      'nothing',
      'unknown_kernel: "nothing" is not a file and names no kernel: expected DISTRO/VERSION/ARCH/RELEASE',
    ],
    [
      'debian/12/x86_64/7',
      'unknown_kernel: "debian/12/x86_64/7" is not a file and names no kernel',
    ],
    [broken, `invalid_header: ${broken}: not BTF: the magic 0xeb9f is missing`],
    [directory, 'EISDIR'],
  ] as const) {
    const { status, stdout, stderr } = await run('diff', '--store', store, x86!, what)
    t.equal(status, 1, what)
    t.match(stderr, `btfmill: ${message}`)
    t.equal(stdout, '')
  }
})

t.test('diff of one kernel, or of three, is wrong usage', async (t) => {
  for (const args of [[x86!], [x86!, i686!, x86!]]) {
    const { status, stderr } = await run('diff', ...args)
    t.equal(status, 2, args.join(' '))
    t.match(stderr, /^btfmill: .*\nRun "btfmill diff --help" for usage\.\n$/)
  }
})
