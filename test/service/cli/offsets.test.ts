// btfmill offsets: tables of constants for programs that have them compiled in. C is compiled and run; what Datadog's
// agent and quark read is read by their rules.
import { execFile } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'
import { layoutOf, parseBtf } from '../../../bpf/index.ts'
import { parseOffsetList } from '../../../service/cli/offsets-list.ts'
import { blobKey, openStore, putRecord, sha256Of } from '../../../storage/index.ts'
import { run, storeOf } from '../../helpers/command.ts'
import { littleKernels } from '../../helpers/core.ts'
import { btfOf, recordOf } from '../../helpers/test-service.ts'

const start = promisify(execFile)
const directory = t.testdir()
const at = (name: string) => join(directory, name)
const bytesOf = (machine: string) => readFileSync(littleKernels().get(machine)!)

/** What quark.h declares for btfhub.c. */
const QUARK_H = `#include <sys/types.h>
#include <stddef.h>
struct quark_btf_target { const char *dotname; ssize_t offset; };
struct quark_btf { char *kname; struct quark_btf_target targets[]; };
`

const LIST = `# for a test
task_struct.pid
task_struct            # its size
load = task_struct.se.load
in_iowait = task_struct.in_iowait
renamed = task_struct.gone | task_struct.mm
gone = task_struct.gone | nothing.at_all
`
const NAMES = ['task_struct.pid', 'task_struct', 'load', 'in_iowait', 'renamed', 'gone']
const list = at('list')
writeFileSync(list, LIST)
writeFileSync(at('one'), 'task_struct.pid\n')
const store = await storeOf(at('store'), [
  { machine: 'x86_64', release: '6.1.0-1' },
  { machine: 'x86_64', release: '6.1.0-2' },
  { machine: 'i686', arch: 'aarch64', release: '5.10.0-1+deb11' },
])
const open = await openStore(store)
const other = { distro: 'ol', version: '7', release: '3.10.0-1160.el7.x86_64' }
await putRecord(open, recordOf(other, { btf: await btfOf(open, bytesOf('i686')) }))

/** The constants of a little kernel, from the layout of its task_struct. */
function expectedOf(machine: string) {
  const btf = parseBtf(bytesOf(machine))
  const task = btf.type(btf.find('task_struct', 'STRUCT')!)
  if (task.kind !== 'STRUCT') throw new Error('no task_struct')
  const layout = layoutOf(btf, task)
  const member = (name: string) => layout.members.find((one) => one.name === name)!
  return {
    'task_struct.pid': { offset: member('pid').offset / 8 },
    task_struct: { size: task.size },
    load: { offset: member('se').offset / 8 },
    in_iowait: { bitOffset: member('in_iowait').offset, bits: 1 },
    renamed: { offset: member('mm').offset / 8 },
    gone: null,
  }
}
const [x86, i686] = [expectedOf('x86_64'), expectedOf('i686')]

t.test('offsets prints a row for each set of values, and the kernels that have it', async (t) => {
  const ended = await run('offsets', list, '--store', store)
  t.match(ended, { status: 0, stderr: '' })
  t.same(JSON.parse(ended.stdout), {
    constants: [i686, x86],
    kernels: [
      { kernel: 'debian/12/aarch64/5.10.0-1+deb11', constants: 0 },
      { kernel: 'debian/12/x86_64/6.1.0-1', constants: 1 },
      { kernel: 'debian/12/x86_64/6.1.0-2', constants: 1 },
      { kernel: 'ol/7/x86_64/3.10.0-1160.el7.x86_64', constants: 0 },
    ],
  })
  t.same(await run('offsets', list, '--store', store, '--json'), ended, 'the same bytes')
  const one = await run('offsets', list, '--btf', littleKernels().get('x86_64')!)
  t.same(JSON.parse(one.stdout).constants, [x86])
  const filtered = await run('offsets', list, '--store', store, '--distro', 'ol')
  t.equal(JSON.parse(filtered.stdout).kernels.length, 1)
})

t.test('the C header compiles without warnings, and has the values', async (t) => {
  const { status, stdout } = await run('offsets', list, '--store', store, '--format', 'c')
  t.equal(status, 0)
  writeFileSync(at('offsets.h'), stdout)
  writeFileSync(
    at('main.c'),
    `#include <stdio.h>
#include "offsets.h"
#include "offsets.h"
int main(void) {
  for (unsigned n = 0; n < sizeof btfmill_kernels / sizeof *btfmill_kernels; n++) {
    const struct btfmill_kernel *kernel = &btfmill_kernels[n];
    printf("%s/%s/%s/%s%s", kernel->distro, kernel->version, kernel->arch, kernel->release, kernel->build);
    for (int name = 0; name < BTFMILL_NAMES; name++) {
      const struct btfmill_constant *constant = &btfmill_rows[kernel->row][name];
      printf(" %d:%lld:%d", constant->kind, (long long)constant->value, constant->bits);
    }
    printf("\\n");
  }
  return btfmill_rows[1][BTFMILL_NAME_task_struct_pid].kind != BTFMILL_KIND_OFFSET;
}
`,
  )
  const flags = ['-std=c99', '-Wall', '-Wextra', '-Wpedantic', '-Werror']
  await start('clang', [...flags, '-o', at('main'), at('main.c')])
  const lines = (await start(at('main'))).stdout.trimEnd().split('\n')
  const line = (kernel: string, values: typeof x86) =>
    [
      kernel,
      `1:${values['task_struct.pid'].offset}:0`,
      `3:${values.task_struct.size}:0`,
      `1:${values.load.offset}:0`,
      `2:${values.in_iowait.bitOffset}:1`,
      `1:${values.renamed.offset}:0`,
      '0:0:0',
    ].join(' ')
  t.same(lines, [
    line('debian/12/aarch64/5.10.0-1+deb11', i686),
    line('debian/12/x86_64/6.1.0-1', x86),
    line('debian/12/x86_64/6.1.0-2', x86),
    line('ol/7/x86_64/3.10.0-1160.el7.x86_64', i686),
  ])
})

t.test('names from outside are strings in C, whatever they have', async (t) => {
  const release = '1"\\\n??/*/"; int injected;\u2028é'
  const hostile = await openStore(`file:${at('hostile')}`)
  const btf = await btfOf(hostile, bytesOf('x86_64'))
  await putRecord(hostile, recordOf({ release }, { btf }))
  for (const format of ['c', 'quark']) {
    const { status, stdout } = await run(
      'offsets',
      at('one'),
      '--store',
      at('hostile'),
      '--format',
      format,
    )
    t.equal(status, 0)
    writeFileSync(
      at(`${format}.c`),
      format === 'c'
        ? `${stdout}#include <stdio.h>\nint main(void) { return puts(btfmill_kernels[0].release) + btfmill_rows[0][0].kind < 0; }\n`
        : `#include <stdio.h>\n${stdout.replace('#include "quark.h"\n', QUARK_H)}\nint main(void) { puts(all_btfs[0]->kname); }\n`,
    )
    await start('clang', ['-std=c99', '-Werror', '-o', at(format), at(`${format}.c`)])
    t.equal((await start(at(format))).stdout, `${release}\n`, format)
  }
})

t.test('the Go source has the same values', async (t) => {
  const { status, stdout } = await run('offsets', list, '--store', store, '--format', 'go')
  t.equal(status, 0)
  t.match(stdout, /^\/\/ Code generated .* DO NOT EDIT\.$/m, 'as Go recognizes it')
  t.match(stdout, '\tName_task_struct_pid = iota\n\tName_task_struct\n')
  for (const { task_struct, load, in_iowait, renamed } of [x86, i686])
    t.match(
      stdout,
      [
        `{${task_struct.size}, KindSize, 0},`,
        `{${load.offset}, KindOffset, 0},`,
        `{${in_iowait.bitOffset}, KindBitfield, 1},`,
        `{${renamed.offset}, KindOffset, 0},`,
        '{0, KindMissing, 0},\n\t},',
      ].join('\n\t\t'),
    )
  t.match(stdout, '\t{"debian", "12", "x86_64", "6.1.0-2", "", 1},\n')
})

t.test(
  "datadog: the agent finds its kernel's constants, and none that the kernel lacks",
  async (t) => {
    const ended = await run('offsets', list, '--store', store, '--format', 'datadog')
    t.equal(ended.status, 1, 'a bitfield is not representable')
    t.match(ended.stderr, /in_iowait: it is a bitfield, which the format datadog cannot hold/)
    const { constants, kernels } = JSON.parse(ended.stdout)
    t.match(
      ended.stdout,
      /^\{\n\t"constants": \[\n\t\t\{\n\t\t\t"load": /,
      'as Go indents and sorts it',
    )
    // fillStore: the first entry with these four; ErrorSentinel for what is not in it
    const find = (distrib: string, version: string, arch: string, uname_release: string) => {
      const wanted = JSON.stringify([distrib, version, arch, uname_release])
      const found = kernels.find(
        (one: Record<string, string>) =>
          JSON.stringify([one.distrib, one.version, one.arch, one.uname_release]) === wanted,
      )
      return constants[found?.cindex]
    }
    const valuesOf = (values: typeof x86) => ({
      load: values.load.offset,
      renamed: values.renamed.offset,
      task_struct: values.task_struct.size,
      'task_struct.pid': values['task_struct.pid'].offset,
    })
    t.same(find('debian', '12', 'x86_64', '6.1.0-1'), valuesOf(x86))
    t.same(find('debian', '12', 'arm64', '5.10.0-1+deb11'), valuesOf(i686))
    for (const version of ['7', '7.9'])
      t.same(find('ol', version, 'x86_64', other.release), valuesOf(i686), version)
    t.equal(find('debian', '12', 'x86_64', 'none'), undefined)
  },
)

t.test('quark: its table compiles, and each kernel has its offsets', async (t) => {
  const { stdout } = await run('offsets', list, '--store', store, '--format', 'quark')
  writeFileSync(at('btfhub.c'), stdout)
  writeFileSync(at('quark.h'), QUARK_H)
  writeFileSync(
    at('quark.c'),
    `#include <stdio.h>
#include "quark.h"
int main(void) {
  extern struct quark_btf *all_btfs[];
  for (struct quark_btf **btf = all_btfs; *btf; btf++) {
    printf("%s", (*btf)->kname);
    for (struct quark_btf_target *target = (*btf)->targets; target->dotname; target++)
      printf(" %s:%zd", target->dotname, target->offset);
    printf("\\n");
  }
}
`,
  )
  const macros = ['-U__amd64__', '-U__aarch64__']
  const tables: Record<string, string[]> = {}
  for (const arch of ['amd64', 'aarch64']) {
    const sources = [at('btfhub.c'), at('quark.c')]
    await start('clang', [
      '-Wall',
      '-Werror',
      ...macros,
      `-D__${arch}__`,
      '-o',
      at('q'),
      ...sources,
    ])
    tables[arch] = (await start(at('q'))).stdout.trimEnd().split('\n')
  }
  const line = (kernel: string, values: typeof x86) => {
    const offsets = [
      values['task_struct.pid'].offset,
      values.task_struct.size,
      values.load.offset,
      -1,
      values.renamed.offset,
      -1,
    ]
    return [kernel, ...NAMES.map((name, n) => `${name}:${offsets[n]}`)].join(' ')
  }
  t.same(tables, {
    amd64: [line('6.1.0-1', x86), line('6.1.0-2', x86), line(other.release, i686)],
    aarch64: [line('5.10.0-1+deb11', i686)],
  })
})

t.test(
  'builds with different BTF are named, or left out where the format cannot name one',
  async (t) => {
    const twins = await storeOf(at('twins'), [
      { machine: 'x86_64', release: '6.1.0-4', version: '1' },
      { machine: 'i686', arch: 'x86_64', release: '6.1.0-4', version: '2' },
    ])
    const { stdout } = await run('offsets', list, '--store', twins)
    const kernel = 'debian/12/x86_64/6.1.0-4'
    const { kernels } = JSON.parse(stdout)
    t.same(kernels.map((one: { build: string }) => one.build).sort(), ['1', '2'])
    t.ok(kernels.every((one: { kernel: string }) => one.kernel === kernel))
    const c = await run('offsets', list, '--store', twins, '--format', 'c')
    t.match(c.stdout, '"6.1.0-4", "2", ')
    for (const format of ['datadog', 'quark']) {
      const ended = await run('offsets', list, '--store', twins, '--format', format)
      t.match(ended, {
        status: 1,
        stderr: `${kernel}: left out: its builds have different offsets`,
      })
      t.notMatch(ended.stdout, '6.1.0-4')
    }
    writeFileSync(at('same'), 'u32\n')
    const same = await run('offsets', at('same'), '--store', twins, '--format', 'datadog')
    t.match(same, { status: 0, stderr: '' }, 'they agree on it')
    t.equal(JSON.parse(same.stdout).kernels.length, 1)
  },
)

t.test(
  'a path through a pointer, a damaged kernel and --btf with names of kernels are reported',
  async (t) => {
    writeFileSync(at('pointer'), 'task_struct.mm.pgd\ntask_struct.pid\n')
    const { status, stdout, stderr } = await run('offsets', at('pointer'), '--store', store)
    t.equal(status, 1)
    t.match(stderr, /task_struct\.mm\.pgd: the path leads through a pointer/)
    t.equal(JSON.parse(stdout).constants[0]['task_struct.mm.pgd'], null)
    const damaged = await storeOf(at('damaged'), [
      { machine: 'x86_64', release: '6.1.0-1' },
      { machine: 'i686', release: '6.1.0-2' },
    ])
    const blobs = await openStore(damaged)
    const { body } = await blobs.get(blobKey(sha256Of(bytesOf('x86_64'))))
    await blobs.put(blobKey(sha256Of(bytesOf('i686'))), Buffer.concat(await body.toArray()))
    const rest = await run('offsets', list, '--store', damaged)
    t.match(rest, { status: 1, stderr: 'debian/12/i686/6.1.0-2: digest_mismatch: ' })
    t.same(JSON.parse(rest.stdout), {
      constants: [x86],
      kernels: [{ kernel: 'debian/12/x86_64/6.1.0-1', constants: 0 }],
    })
    const named = await run('offsets', list, '--btf', '6.1.0-1', '--store', store, '--format', 'c')
    t.match(named, { status: 2, stdout: '', stderr: /expected filters, not --btf/ })
  },
)

t.test('an invalid list is refused with the line and what would be right', async (t) => {
  const cases = [
    ['', /no entries/],
    ['a.b\na.\n', /line 2: invalid path "a\."/],
    ['x = y = z\n', /line 1: invalid path/],
    ['a->b\n', /invalid path "a->b": expected TYPE, TYPE\.MEMBER/],
    ['a.b |\n', /invalid path ""/],
    ['9x = a.b\n', /invalid name "9x"/],
    ['a.b\n\na.b\n', /line 3: duplicate name "a\.b"/],
    ['a.b_c\na_b.c\n', /"a\.b_c" and "a_b\.c" are the same identifier/],
    [`a = ${'b | '.repeat(20)}c\n`, /more than 16 paths/],
  ] as const
  for (const [text, message] of cases)
    t.throws(() => parseOffsetList(text, 'list'), { code: 'invalid_list', message }, text)
  const many = Array.from({ length: 10_001 }, (_, n) => `a.b${n}`).join('\n')
  t.throws(() => parseOffsetList(many, 'list'), { message: /more than 10000 entries/ })
  t.same(parseOffsetList('struct a.b\r\nN = enum c.D | e # x\r\n', 'list'), [
    { name: 'a.b', paths: ['struct a.b'] },
    { name: 'N', paths: ['enum c.D', 'e'] },
  ])
  const missing = await run('offsets', at('nothing'), '--store', store)
  t.match(missing, { status: 1, stderr: /invalid_file|does not exist/ })
})
