// Partial BTF from kernel headers: what it has, what is recorded, and which headers are refused.
import { existsSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { type Btf, parseBtf } from '../../../bpf/index.ts'
import { generateFiles } from '../../../generator/index.ts'
import {
  type BuildRecord,
  Catalog,
  collectGarbage,
  getBlob,
  openWithPartial,
  partialOf,
  putRecord,
  type Store,
  verifyStore,
} from '../../../storage/index.ts'
import { type HeaderTreeOptions, headerFiles, writeTree } from '../../helpers/header-tree.ts'
import { tarOf } from '../../helpers/package.ts'
import { makeRunDirectory } from '../../helpers/run-directory.ts'
import { recordOf } from '../../helpers/test-service.ts'

const KERNEL = { distro: 'debian', version: '12' }

/** Makes partial BTF of headers; returns the record, which has the BTF or a failure. */
async function make(
  t: Test,
  urls: readonly string[] | ((directory: string) => string[]),
): Promise<{ record: BuildRecord; store: Store; btf: Btf | undefined; directory: string }> {
  const run = await makeRunDirectory(t)
  const { store, scratch, directory } = run
  const files = typeof urls === 'function' ? urls(directory) : urls
  await generateFiles(files, KERNEL, { store, scratch, from: 'headers' })
  t.same(await run.records(), [], 'nothing is among the BTF of whole kernels')
  const part = partialOf(store)
  const [entry] = (await Catalog.open(part)).list()
  const { record } = entry!
  const btf = record.btf && parseBtf(await getBlob(part, record.btf.sha256))
  return { record, store, btf, directory }
}

/** Makes partial BTF of a small tree in a folder. */
const makeOf = (t: Test, options: HeaderTreeOptions = {}, prepare = (_: string) => {}) =>
  make(t, (directory) => {
    const folder = writeTree(join(directory, 'linux-headers-test'), headerFiles(options))
    prepare(folder)
    return [folder]
  })

t.test('a folder of headers gives partial BTF, and its record says what is in it', async (t) => {
  const { record, btf, store } = await makeOf(t)
  t.match(record, {
    origin: 'headers',
    kernel: { arch: 'x86_64', release: '6.1.9-9-test', unameVersion: '#1 SMP Test 6.1.9-1' },
    embedded: false,
    headers: {
      compiled: 4,
      failed: 0,
      structs: 5,
      offsets: 2,
      symbols: { count: 1 },
      configuration: /^[0-9a-f]{64}$/,
      list: /^[0-9a-f]{64}$/,
      compiler: { name: /^(gcc|clang)$/, kernel: 'gcc (Debian 12.2.0) 12.2.0' },
    },
    tool: { name: 'pahole', fingerprint: /^headers / },
  })
  t.ok(btf?.find('task_struct', 'STRUCT'))
  t.ok(btf?.find('sk_buff', 'STRUCT'), 'a header whose option is y')
  t.notOk(btf?.find('usb_device', 'STRUCT'), 'not the types of what is a module')
  t.same(
    btf?.kinds().filter((kind) => ['FUNC', 'VAR', 'DATASEC'].includes(kind)),
    [],
  )
  t.same(await Array.fromAsync(verifyStore(partialOf(store))), [])
})

t.test('two runs of the same headers give the same BTF', async (t) => {
  const [first, second] = [await makeOf(t), await makeOf(t)]
  t.equal(first.record.btf?.sha256, second.record.btf?.sha256)
})

t.test('a header that does not compile is left out, with the reason', async (t) => {
  const { record, btf } = await makeOf(t, {
    files: {
      'include/linux/fs.h': '#include <linux/nowhere.h>\n',
      'include/linux/mm.h': 'struct broken {\n',
    },
  })
  t.match(record.headers, { compiled: 3, failed: 2 })
  const failed = Object.fromEntries(record.headers!.failures.map((one) => [one.header, one.reason]))
  t.same(Object.keys(failed).sort(), ['linux/fs.h', 'linux/mm.h'])
  t.ok(btf?.find('task_struct', 'STRUCT'))
})

t.test('the types of trace events are there, made by their first inclusion', async (t) => {
  const { btf, record } = await makeOf(t, {
    files: {
      'include/trace/events/task.h':
        '#ifdef CREATE_TRACE_POINTS\n#include <linux/sched.h>\nstruct trace_event_raw_task_newtask { struct task_struct *task; };\n#endif\n',
    },
  })
  t.ok(btf?.find('trace_event_raw_task_newtask', 'STRUCT'))
  t.equal(btf?.idsOf !== undefined && record.headers?.compiled, 5)
  const tasks = [...btf!.types()].filter(
    ({ name, kind }) => name === 'task_struct' && kind === 'STRUCT',
  )
  t.equal(tasks.length, 1, 'one type, though two units have it')
})

t.test('headers that could give wrong layouts are refused', async (t) => {
  const refused = async (what: string, options: HeaderTreeOptions, failure: object) => {
    const { record } = await makeOf(t, options)
    t.match(record, { failure, btf: undefined }, what)
  }
  await refused('random layouts', { options: ['RANDSTRUCT'] }, { code: 'random_layout' })
  await refused(
    'random layouts of the plugin',
    { options: ['GCC_PLUGIN_RANDSTRUCT'] },
    {
      code: 'random_layout',
    },
  )
  await refused(
    'no configuration',
    { files: { 'include/generated/autoconf.h': undefined } },
    { code: 'invalid_headers', message: /autoconf\.h/ },
  )
  await refused(
    'another configuration than that of make',
    { files: { 'include/config/auto.conf': 'CONFIG_X86_64=y\nCONFIG_PREEMPT_RT=y\n' } },
    { code: 'invalid_headers', message: /different configurations: .*CONFIG_/ },
  )
  await refused(
    'an offset that the kernel has elsewhere',
    {
      files: {
        'include/generated/asm-offsets.h':
          '#define TASK_pid 16 /* offsetof(struct task_struct, pid) */\n',
      },
    },
    { code: 'layout_mismatch', message: /task_struct\.pid at 16, the compiled headers at 8/ },
  )
  await refused(
    'no release',
    { files: { 'include/generated/utsrelease.h': undefined } },
    { code: 'invalid_headers', message: /release/ },
  )
  await refused(
    'nothing of a kernel',
    { files: { 'include/linux/sched.h': '', 'include/linux/fs.h': '' } },
    { code: 'invalid_btf' },
  )
  await refused(
    'lines that are no symbols',
    { files: { 'Module.symvers': 'printk\n' } },
    { code: 'invalid_headers', message: /Module\.symvers/ },
  )
})

t.test('headers of another kernel than the given one are refused', async (t) => {
  const run = await makeRunDirectory(t)
  const folder = writeTree(join(run.directory, 'linux-headers-x'), headerFiles())
  const options = { store: run.store, scratch: run.scratch, from: 'headers' } as const
  await generateFiles([folder], { ...KERNEL, release: '6.1.0-other' }, options)
  const [entry] = (await Catalog.open(partialOf(run.store))).list()
  t.match(entry?.record.failure, { code: 'kernel_mismatch', message: /6\.1\.9-9-test/ })
})

t.test('a header that includes a file outside of the package gives nothing of it', async (t) => {
  const secret = join(
    t.testdir({ secret: 'struct secret_of_this_machine { int x; };\n' }),
    'secret',
  )
  const { record, btf } = await makeOf(t, {
    files: { 'include/linux/fs.h': `#include "${secret}"\n#include "/etc/passwd"\n` },
  })
  t.notOk(btf?.find('secret_of_this_machine', 'STRUCT'))
  t.notMatch(JSON.stringify(record), /secret_of_this_machine|root:/)
  const isCoded = record.failure?.code === 'invalid_headers' || record.headers?.failed === 1
  t.ok(isCoded, 'with namespaces the file is not there; without, the headers are refused')
})

t.test('headers without end are stopped', async (t) => {
  const doubled = Array.from({ length: 60 }, (_, n) => `#define A${n + 1} A${n} A${n}\n`).join('')
  const files = {
    'include/linux/fs.h': '#include <linux/fs.h>\n',
    'include/linux/mm.h': `#define A0 x\n${doubled}int A60;\n`,
  }
  const { record } = await makeOf(t, { files })
  const code = record.failure?.code
  t.ok(code === 'headers_limit' || record.headers!.failed === 2, `${code}`)
})

t.test('links of a folder lead nowhere but to the headers beside it', async (t) => {
  const { btf, record } = await makeOf(t, {}, (folder) => {
    const beside = join(folder, '../linux-headers-test-common')
    writeTree(beside, { 'include/net/sock.h': 'struct sock { int family; };\n' })
    writeTree(join(folder, '../private'), {
      'include/net/tcp.h': 'struct private_type { int x; };\n',
    })
    symlinkSync('../../linux-headers-test-common/include/net', join(folder, 'include/net'))
    symlinkSync('/etc', join(folder, 'include/etc'))
    symlinkSync(join(folder, '../private/include/net/tcp.h'), join(folder, 'include/linux/tcp.h'))
    symlinkSync('.', join(folder, 'include/linux/loop'))
  })
  t.ok(btf?.find('sock', 'STRUCT'))
  t.notOk(btf?.find('private_type', 'STRUCT'))
  t.equal(record.failure, undefined)
})

t.test("Debian's folder leads to the common headers by its Makefile", async (t) => {
  const { btf } = await makeOf(t, { files: { 'include/linux/fs.h': undefined } }, (folder) => {
    writeTree(`${folder}-common`, { 'include/linux/fs.h': 'struct file { int fd; };\n' })
    writeFileSync(join(folder, 'Makefile'), `include /usr/src/linux-headers-test-common/Makefile\n`)
  })
  t.ok(btf?.find('file', 'STRUCT'))
})

t.test(
  'a tar as /sys/kernel/kheaders.tar.xz gives the same, and its links and odd paths nothing',
  async (t) => {
    const entries = Object.entries(headerFiles()).map(
      ([path, text]) => [`./${path}`, text] as const,
    )
    const write = async (
      directory: string,
      more: readonly (readonly [string, string | { linkname: string }])[],
    ) => {
      const file = join(directory, 'kheaders.tar')
      writeFileSync(file, await tarOf([...entries, ...more]))
      return file
    }
    const plain = await write(t.testdir({}), [
      ['./include/linux/mm.h', { linkname: '/etc/passwd' }],
    ])
    const { record } = await make(t, [plain])
    t.match(record, { origin: 'headers', headers: { structs: 5 } })
    const hostile = await write(t.testdir({}), [['../../outside.h', 'int x;']])
    const refused = await make(t, [hostile])
    t.match(refused.record.failure, { code: 'invalid_headers', message: /leaves it/ })
    t.notOk(existsSync(join(hostile, '../../outside.h')))
    const mixed = await write(t.testdir({}), [['./include/linux', 'a file, not a folder']])
    t.match((await make(t, [mixed])).record.failure, { code: 'invalid_headers' })
  },
)

t.test('partial BTF is never among that of whole kernels, nor the other way round', async (t) => {
  const { record, store } = await makeOf(t)
  const part = partialOf(store)
  await t.rejects(putRecord(store, record), { code: 'invalid_record' })
  await t.rejects(putRecord(part, recordOf({})), { code: 'invalid_record' })
  await t.same(await Array.fromAsync(collectGarbage(store, { minAge: 0 })), [])
  t.same(await Array.fromAsync(collectGarbage(part, { minAge: 0 })), [], 'its blob is named')
  const { catalog, store: both } = await openWithPartial(store)
  t.equal(catalog.size, 1)
  t.ok(await getBlob(both, record.btf!.sha256))
  const { btf: _, headers: __, ...whole } = record
  await putRecord(store, { ...whole, origin: 'pahole', btf: record.btf! })
  const [only] = (await openWithPartial(store)).catalog.list()
  t.equal(only?.record.origin, 'pahole', 'whole BTF hides partial BTF')
})

t.test('an empty folder is refused', async (t) => {
  const { record } = await make(t, (directory) => {
    mkdirSync(join(directory, 'empty'))
    return [join(directory, 'empty')]
  })
  t.match(record.failure, { code: 'invalid_headers' })
})
