// btfmill check: whether objects load on one kernel or on the kernels of a store, and why not.
import { execFileSync } from 'node:child_process'
import { copyFileSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { run, storeOf } from '../../helpers/command.ts'
import { coreObjects, littleKernels } from '../../helpers/core.ts'

const directory = t.testdir()
const object = (name: string) => coreObjects('el').get(name)!
const x86 = littleKernels().get('x86_64')!
const on = ['--btf', x86]

t.test(
  'check prints a line for each object, and the accesses that keep it from loading',
  async (t) => {
    const names = ['task', 'plain', 'subprogram', 'exists', 'limit']
    const { status, stdout, stderr } = await run('check', ...names.map(object), ...on)
    t.equal(status, 1, 'two do not load')
    t.same(stdout.split('\n'), [
      `task.el.o on ${x86}: loads: 16 relocated`,
      `plain.el.o on ${x86}: loads: no relocations`,
      `subprogram.el.o on ${x86}: loads: 4 relocated, 1 absent, 1 guarded`,
      `exists.el.o on ${x86}: does not load: 8 relocated, 3 absent, 5 guarded, 2 poisoned`,
      '  size_of_missing: nowhere->nested (byte_sz) is not there, and nothing guards it',
      '    ./exists.bpf.c:110: int size_of_missing(void **ctx)',
      '  unguarded: nowhere->at_all (byte_off) is not there; reached only if ./exists.bpf.c:104: if (ctx[1])',
      '    ./exists.bpf.c:104: if (ctx[1])',
      `limit.el.o on ${x86}: does not load: 3 relocated, 2 absent, 2 fatal`,
      '  far_load: pglist_data->node_id (byte_off): the offset in the kernel does not fit an instruction: 80000',
      '    ./limit.bpf.c:32: out[0] = node->node_id;',
      '  far_store: rcu_state->gp_seq (byte_off): the offset in the kernel does not fit an instruction: 80000',
      '    ./limit.bpf.c:41: state->gp_seq = 5;',
      '',
    ])
    t.equal(stderr, '')
  },
)

t.test(
  'check ends with 0 for objects that load, even with absent and guarded accesses',
  async (t) => {
    const { status } = await run('check', object('task'), object('subprogram'), ...on)
    t.equal(status, 0)
  },
)

t.test('check --json prints each program with its relocations', async (t) => {
  const { status, stdout } = await run('check', object('exists'), ...on, '--json')
  t.equal(status, 1)
  const check = JSON.parse(stdout)
  t.match(check, { object: object('exists'), kernel: x86, loads: 'no' })
  const program = (name: string) =>
    check.programs.find((program: { name: string }) => program.name === name)
  t.match(program('early'), {
    loads: 'yes',
    relocations: [
      { access: 'nowhere->at_all', kind: 'field_exists', outcome: { is: 'absent', old: '1' } },
      { outcome: { is: 'poisoned', why: 'missing' }, guard: { is: 'guarded' } },
      { access: 'nowhere->nested.inside', guard: { is: 'guarded' } },
    ],
  })
  t.match(program('unguarded'), {
    loads: 'depends',
    section: 'raw_tp/unguarded',
    relocations: [
      {
        instruction: 2,
        source: { file: './exists.bpf.c', line: 104, text: 'if (ctx[1])' },
        guard: { is: 'reached only if', onlyIf: { line: 104 } },
      },
    ],
  })
  t.match(program('either').relocations[0], { outcome: { is: 'ok' } })
})

t.test(
  'check works on the kernels that filters select, and reports a kernel of another byte order',
  async (t) => {
    const store = await storeOf(join(directory, 'store'), [
      { machine: 'x86_64', release: '6.1.0-1' },
      { machine: 'i686', release: '5.10.0-1' },
      { machine: 's390x', release: '6.1.0-2' },
      { machine: 'x86_64', release: '6.1.0-4', version: '1' },
      { machine: 'i686', arch: 'x86_64', release: '6.1.0-4', version: '2' },
    ])
    const from = ['--store', store]
    const [all, some, none] = await Promise.all([
      run('check', object('task'), ...from, '--distro', 'debian'),
      run('check', object('task'), ...from, '--release', '*-1', '--json'),
      run('check', object('task'), ...from, '--arch', 'riscv64'),
    ])
    t.equal(all.status, 1)
    t.same(all.stdout.split('\n'), [
      'task.el.o on debian/12/i686/5.10.0-1: loads: 16 relocated',
      'task.el.o on debian/12/x86_64/6.1.0-1: loads: 16 relocated',
      'task.el.o on debian/12/x86_64/6.1.0-4 (1): loads: 16 relocated',
      'task.el.o on debian/12/x86_64/6.1.0-4 (2): loads: 16 relocated',
      '',
    ])
    t.equal(
      all.stderr,
      'btfmill: task.el.o on debian/12/s390x/6.1.0-2: unsupported: the object is little-endian, the kernel big-endian\n',
    )
    t.equal(some.status, 0)
    const kernels = some.stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line).kernel)
    t.same(kernels, ['debian/12/i686/5.10.0-1', 'debian/12/x86_64/6.1.0-1'])
    t.match(none, {
      status: 1,
      stdout: '',
      stderr: 'unknown_kernel: no kernels match --arch riscv64: there are i686, s390x, x86_64',
    })
  },
)

t.test('check and minimize take objects without .BTF.ext or without any types', async (t) => {
  for (const sections of [['.BTF.ext'], ['.BTF', '.BTF.ext']]) {
    const bare = join(directory, 'bare.o')
    copyFileSync(object('task'), bare)
    execFileSync('llvm-objcopy', [...sections.map((name) => `--remove-section=${name}`), bare])
    const output = join(directory, 'bare.btf')
    const [check, minimize] = await Promise.all([
      run('check', bare, ...on),
      run('minimize', bare, ...on, '-o', output),
    ])
    t.match(check, { status: 0, stderr: '' })
    t.match(minimize, { status: 0, stderr: '' })
    t.equal(readFileSync(output).length, 25, 'BTF without types')
  }
})

t.test('check refuses files that are not BPF objects, and names the file', async (t) => {
  const [noElf, nowhere] = await Promise.all([
    run('check', x86, ...on),
    run('check', object('task'), join(directory, 'nothing.o'), ...on),
  ])
  t.match(noElf, { status: 1, stdout: '', stderr: `btfmill: invalid_elf: ${x86}: not an ELF file` })
  t.match(nowhere, { status: 1, stdout: '', stderr: 'ENOENT' })
})

t.test('check without an object, or with both --btf and a filter, is wrong usage', async (t) => {
  const [none, both] = await Promise.all([
    run('check', ...on),
    run('check', object('task'), ...on, '--release', '6*'),
  ])
  t.match(none, { status: 2, stderr: "missing required argument 'object'" })
  t.match(both, {
    status: 2,
    stderr: "'--btf <kernel>' cannot be used with option '--release <glob>'",
  })
})
