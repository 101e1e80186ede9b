// The sandbox of the compiler: what programs in it can see, and what holds where a machine allows no namespaces.
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { HeaderCompilation } from '../../../generator/headers/compile.ts'
import { choicesFor, findCompiler } from '../../../generator/headers/compiler.ts'
import { readFacts } from '../../../generator/headers/configuration.ts'
import { readFolder } from '../../../generator/headers/folder.ts'
import { MACHINES } from '../../../generator/headers/machine.ts'
import { checkLimits, SANDBOX_LIMITS, Sandbox } from '../../../generator/headers/sandbox.ts'
import { HeaderTree } from '../../../generator/headers/tree.ts'
import { headerFiles, writeTree } from '../../helpers/header-tree.ts'

/** The directories of a sandbox; without a root directory it has no namespaces. */
function directories(t: Test) {
  const home = t.testdir({ headers: { 'a.h': 'int a;\n' }, work: {}, root: {}, secret: 'private' })
  const at = (name: string) => join(home, name)
  return { headers: at('headers'), work: at('work'), root: at('root'), home }
}

const open = async (t: Test, limits = SANDBOX_LIMITS) => {
  const paths = directories(t)
  return { ...paths, sandbox: await Sandbox.open(paths, paths.root, limits) }
}

t.test('a program in the sandbox sees the headers and programs, and nothing else', async (t) => {
  const { sandbox, home, headers } = await open(t)
  if (!sandbox.isolated) return void t.pass('', { skip: 'this machine allows no namespaces' })
  const run = async (script: string) => (await sandbox.run('/bin/sh', ['-c', script])).status
  t.equal(await run('test -r /headers/a.h && test -x /usr/bin/env'), 0)
  for (const path of [home, '/etc/passwd', '/proc/self/environ', '/root', '/var'])
    t.equal(await run(`test -e ${path}`), 1, path)
  t.not(await run('echo x > /headers/b.h'), 0)
  t.not(await run('echo x > /usr/bin/x-of-headers'), 0)
  t.notOk(existsSync(join(headers, 'b.h')))
  t.equal(await run('test "$(ls /sys/class/net 2>/dev/null)" = "" && test -z "$HOME"'), 0)
  t.equal(await run('echo x > /work/out'), 0)
  t.ok(existsSync(join(home, 'work/out')))
})

t.test('memory, time and output of a program in the sandbox are limited', async (t) => {
  const limits = { memory: 512 * 1024 ** 2, seconds: 2, fileSize: 1024 ** 2 }
  const { sandbox } = await open(t, limits)
  const { work } = sandbox.paths
  const run = (script: string) => sandbox.run('/bin/sh', ['-c', script])
  for (const script of [
    'while :; do :; done',
    'sleep 30',
    `head -c 5000000 /usr/bin/env /bin/sh /bin/sh /bin/sh /bin/sh /bin/sh /bin/sh /bin/sh /bin/sh /bin/sh /bin/sh /bin/sh /bin/sh > ${work}/large`,
  ]) {
    const result = await run(script)
    t.throws(() => checkLimits(result, 'it'), { code: 'headers_limit' }, script.slice(0, 20))
  }
  t.doesNotThrow(() => checkLimits({ ...DONE, status: 1, stderr: 'error: no' }, 'it'))
})

const DONE = {
  ended: 'status',
  status: 0,
  signal: null,
  stdout: Buffer.alloc(0),
  stderr: '',
} as const

t.test(
  'without namespaces a header that reads another file is refused, and nothing of the file is told',
  async (t) => {
    const home = t.testdir({})
    const secret = join(home, 'secret.h')
    writeFileSync(secret, 'struct secret { int x; };\n')
    const compile = async (fs: string) => {
      const folder = join(home, `tree-${fs.length}`)
      writeTree(join(folder, 'in'), headerFiles({ files: { 'include/linux/fs.h': fs } }))
      const [headers, work] = [join(folder, 'headers'), join(folder, 'work')]
      for (const path of [headers, work]) mkdirSync(path)
      const tree = new HeaderTree(headers)
      for await (const entry of readFolder(join(folder, 'in'))) await tree.add(entry)
      const sandbox = await Sandbox.open({ headers, work }, join(home, 'no-such-root'))
      t.equal(sandbox.isolated, false)
      const facts = await readFacts(tree)
      const compiler = await findCompiler(facts, sandbox, work)
      return await new HeaderCompilation(tree, facts, compiler, sandbox, work).run()
    }
    await t.rejects(compile(`#include "${secret}"\n`), {
      code: 'invalid_headers',
      message: /outside of the package/,
    })
    const { failed } = await compile('#include "/etc/passwd"\n')
    t.same(failed, [{ header: 'linux/fs.h', reason: 'does not compile' }])
  },
)

t.test("the kernel's own compiler comes first, then its family, then the other", (t) => {
  const machine = MACHINES.find(({ arch }) => arch === 'aarch64')!
  const programs = (family: 'gcc' | 'clang', version: string) =>
    choicesFor({ machine, compiler: { family, version } }).map(({ program }) => program)
  t.same(programs('gcc', 'aarch64-linux-gnu-gcc-12 (Debian 12.2.0-14) 12.2.0').slice(0, 4), [
    'aarch64-linux-gnu-gcc-12',
    'gcc-12',
    'aarch64-linux-gnu-gcc',
    'gcc',
  ])
  t.ok(programs('gcc', '').includes('clang'))
  t.same(programs('clang', 'Debian clang version 16.0.6').slice(0, 2), ['clang-16', 'clang'])
  t.end()
})

t.test('no compiler for an architecture is an error that names what to install', async (t) => {
  const { sandbox, work } = await open(t)
  const machine = { ...MACHINES[0]!, arch: 'other', target: 'nothing-linux-gnu' }
  const compiler = { family: 'gcc', version: '' } as const
  await t.rejects(findCompiler({ machine, compiler }, sandbox, work), {
    code: 'compiler_mismatch',
    message: /no compiler on this machine takes the options of other kernels/,
  })
  const odd = { ...MACHINES[0]!, options: ['-mno-such-option-of-layouts'] }
  await t.rejects(findCompiler({ machine: odd, compiler }, sandbox, work), {
    code: 'compiler_mismatch',
  })
})
