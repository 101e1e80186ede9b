// btfmill check: whether objects load on one kernel or on the kernels of a store, and why not.
import { execFileSync } from 'node:child_process'
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { Catalog, openStore, putRecord } from '../../../storage/index.ts'
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
      `task.el.o on ${x86}: yes`,
      `plain.el.o on ${x86}: yes`,
      `subprogram.el.o on ${x86}: yes`,
      `exists.el.o on ${x86}: no`,
      '  size_of_missing: nowhere->nested (byte_sz) is missing [missing_type]',
      '    ./exists.bpf.c:114: out[0] = bpf_core_field_size(object->nested);',
      '  unguarded: nowhere->at_all (byte_off) is missing [missing_type]',
      '    ./exists.bpf.c:105: out[0] = BPF_CORE_READ(object, at_all);',
      `limit.el.o on ${x86}: no`,
      '  far_load: pglist_data->node_id (byte_off): the offset in the kernel does not fit an instruction: 80000 [invalid_relocation]',
      '    ./limit.bpf.c:32: out[0] = node->node_id;',
      '  far_store: rcu_state->gp_seq (byte_off): the offset in the kernel does not fit an instruction: 80000 [invalid_relocation]',
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
    verdict: 'no',
    loads: 'no',
    section: 'raw_tp/unguarded',
    reasons: [{ code: 'missing_type', verdict: 'no', stage: 'load', instruction: 2 }],
    relocations: [
      {
        instruction: 2,
        source: {
          file: './exists.bpf.c',
          line: 105,
          text: 'out[0] = BPF_CORE_READ(object, at_all);',
        },
        guard: { is: 'unguarded' },
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
    const lines = all.stdout.split('\n')
    t.same(lines.slice(0, 6), [
      'task.el.o: 5 kernels: 2 yes, 1 no, 2 cannot tell',
      '  debian/12 5.10: 1 cannot tell',
      '  debian/12 6.1: 2 yes, 1 no, 1 cannot tell',
      'debian/12/i686/5.10.0-1: cannot tell',
      '  walk: task_struct->real_parent has 4 bytes in this kernel, and the program reads 8 (cannot tell) [short_field]',
      '    ./task.bpf.c:49: out[1] = BPF_CORE_READ(task, real_parent, real_parent, tgid);',
    ])
    t.ok(lines.includes('debian/12/s390x/6.1.0-2: no'))
    t.notOk(lines.includes('debian/12/x86_64/6.1.0-1: yes'), 'what works is in the summary alone')
    t.equal(
      all.stderr,
      'btfmill: task.el.o on debian/12/s390x/6.1.0-2: unsupported: the object is little-endian, the kernel big-endian\n',
    )
    t.equal(some.status, 3, 'on a 32-bit kernel it may read wrong values')
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

t.test('check --btf takes what the record of a kernel says, as filters do', async (t) => {
  const url = await storeOf(join(directory, 'embedded'), [
    { machine: 'x86_64', release: '6.1.0-9-amd64' },
  ])
  const store = await openStore(url)
  const [{ record } = { record: undefined }] = [...(await Catalog.open(store)).list()]
  await putRecord(store, { ...record!, embedded: false })
  const needs = async (...args: string[]) => {
    const { stdout } = await run('check', object('attach'), '--store', url, '--json', ...args)
    const [first] = stdout.split('\n')
    const { programs } = JSON.parse(first!) as { programs: { reasons: { code: string }[] }[] }
    return programs.flatMap(({ reasons }) => reasons.filter(({ code }) => code === 'no_kernel_btf'))
  }
  const named = await needs('--btf', '6.1.0-9-amd64')
  t.ok(named.length > 0, 'a kernel without BTF of its own takes no fentry')
  t.same(named, await needs('--release', '6.1.0-9-amd64'))
})

t.test('check refuses files that are not BPF objects, and names the file', async (t) => {
  const [noElf, nowhere] = await Promise.all([
    run('check', x86, ...on),
    run('check', object('task'), join(directory, 'nothing.o'), ...on),
  ])
  t.match(noElf, { status: 1, stdout: '', stderr: `btfmill: invalid_elf: ${x86}: not an ELF file` })
  t.match(nowhere, { status: 1, stdout: '', stderr: /invalid_file: .*it does not exist/ })
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

t.test('check has formats for CI systems, which name reason, source line and kernel', async (t) => {
  const reports = await Promise.all(
    ['junit', 'sarif', 'github'].map((format) =>
      run('check', object('exists'), object('task'), ...on, '--format', format),
    ),
  )
  for (const { status } of reports) t.equal(status, 1)
  const [junit, sarif, github] = reports.map(({ stdout }) => stdout)
  t.match(junit, '<testsuite name="exists.el.o" tests="1" failures="1" errors="0" skipped="0">')
  t.match(junit, '<failure message="nowhere-&#62;nested (byte_sz) is missing">')
  t.match(junit, `<testcase classname="task.el.o" name="${x86}"/>`)
  const { version, runs } = JSON.parse(sarif!)
  t.equal(version, '2.1.0')
  t.match(runs[0].results[1], {
    ruleId: 'missing_type',
    level: 'error',
    locations: [
      {
        physicalLocation: {
          artifactLocation: { uri: 'exists.bpf.c' },
          region: { startLine: 105 },
        },
      },
    ],
    properties: { kernels: [x86] },
  })
  t.match(
    github,
    '::error file=exists.bpf.c,line=105,title=missing_type::unguarded: nowhere->at_all',
  )
})

t.test('check with a baseline fails only for kernels on which the object worked', async (t) => {
  const before = await run('check', object('task'), object('exists'), ...on, '--json')
  const file = join(t.testdir(), 'before.ndjson')
  writeFileSync(file, before.stdout)
  const same = await run('check', object('exists'), ...on, '--baseline', file)
  t.equal(same.status, 0, 'it did not work before either')
  const worked = before.stdout.replaceAll('"verdict":"no"', '"verdict":"yes"')
  writeFileSync(file, worked)
  const lost = await run('check', object('exists'), ...on, '--baseline', file)
  t.match(lost, { status: 1, stderr: `btfmill: lost: exists.el.o on ${x86}` })
  writeFileSync(file, 'no JSON')
  t.match(await run('check', object('task'), ...on, '--baseline', file), {
    status: 1,
    stderr: 'invalid_file: invalid baseline',
  })
})

t.test('check leaves programs out that libbpf loads only when asked, unless asked', async (t) => {
  const json = async (...options: string[]) =>
    JSON.parse((await run('check', object('reachability'), ...on, '--json', ...options)).stdout)
  const optional = ({ programs }: { programs: { name: string }[] }) =>
    programs.find(({ name }) => name === 'loads_optional')
  t.match(optional(await json()), { loaded: false, verdict: 'yes' })
  t.match(optional(await json('--all-programs')), { loaded: true, verdict: 'no' })
})

t.test('check --report writes further reports, equal to those that are printed', async (t) => {
  const folder = t.testdir()
  const formats = ['json', 'sarif', 'text']
  const reports = formats.flatMap((format) => ['--report', `${format}:${join(folder, format)}`])
  const { status, stdout } = await run('check', object('exists'), ...on, ...reports)
  t.equal(status, 1)
  t.equal(readFileSync(join(folder, 'text'), 'utf8'), stdout)
  for (const format of ['json', 'sarif']) {
    const printed = await run('check', object('exists'), ...on, '--format', format)
    t.equal(readFileSync(join(folder, format), 'utf8'), printed.stdout)
  }
  for (const wrong of ['sarif', 'html:x'])
    t.match(await run('check', object('exists'), ...on, '--report', wrong), {
      status: 2,
      stderr: `invalid --report "${wrong}": expected FORMAT:FILE, with one of text, json`,
    })
})
