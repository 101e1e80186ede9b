// btfmill minimize: one kernel into a file, the kernels of a store into a tree.
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { openObject, parseBtf, relocate, toDialect } from '../../../bpf/index.ts'
import { compareGraphs, dumpTypes, minimizeWithBpftool } from '../../bpf/oracle/bpftool.ts'
import { run, storeOf } from '../../helpers/command.ts'
import { coreObjects, littleKernels } from '../../helpers/core.ts'

const directory = t.testdir()
const [task, bitfield, ambiguous, plain] = ['task', 'bitfield', 'ambiguous', 'plain'].map(
  (name) => coreObjects('el').get(name)!,
) as [string, string, string, string]
const x86 = littleKernels().get('x86_64')!
const store = await storeOf(join(directory, 'store'), [
  { machine: 'x86_64', release: '6.1.0-1' },
  { machine: 'i686', release: '5.10.0-1+deb11' },
  { machine: 's390x', release: '6.1.0-1' },
])

const filesIn = (path: string) =>
  readdirSync(path, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(path.length + 1))
    .sort()

t.test('minimize writes the same types for a kernel as bpftool', async (t) => {
  const theirs = join(directory, 'theirs.btf')
  t.equal(await minimizeWithBpftool(x86, [task, bitfield], theirs), undefined)
  const out = join(directory, 'new/one.btf')
  const { status, stdout, stderr } = await run('minimize', task, bitfield, '--btf', x86, '-o', out)
  t.equal(status, 0)
  t.same(compareGraphs(await dumpTypes(theirs), await dumpTypes(out)), [])
  t.equal(stdout, `${out}: ${readFileSync(out).length} of ${readFileSync(x86).length} bytes\n`)
  t.equal(stderr, '')
})

t.test(
  'minimize takes a kernel of the store by its name, and overwrites the output file',
  async (t) => {
    const out = join(directory, 'named.btf')
    writeFileSync(out, 'old')
    const named = ['--btf', 'debian/12/amd64/6.1.0-1', '--store', store]
    const { status, stdout } = await run('minimize', task, ...named, '-o', out, '--json')
    t.equal(status, 0)
    const { size, types, ...rest } = JSON.parse(stdout)
    t.same(rest, { kernel: named[1], path: out, of: readFileSync(x86).length })
    t.equal(size, readFileSync(out).length)
    t.equal(types, parseBtf(readFileSync(out)).typeCount)
  },
)

t.test(
  'minimize writes a tree for the kernels of a store, and each file relocates as the whole BTF does',
  async (t) => {
    const out = join(directory, 'tree')
    const args = ['--store', store, '--distro', 'debian', '--release', '[56].*', '-o', out]
    const { status, stdout } = await run('minimize', task, ...args)
    t.equal(status, 0)
    const files = [
      'debian/12/i686/5.10.0-1+deb11.btf',
      'debian/12/s390x/6.1.0-1.btf',
      'debian/12/x86_64/6.1.0-1.btf',
    ]
    t.same(filesIn(out), files, 'no temporary file is left')
    t.same(
      stdout.split('\n').map((line) => line.split(':')[0]),
      [...files.map((file) => join(out, file)), ''],
    )
    const object = openObject(readFileSync(task))
    const small = parseBtf(readFileSync(join(out, files[2]!)))
    const outcomes = (kernel: typeof small) =>
      relocate(object, kernel).relocations.map(({ outcome }) => outcome)
    t.same(outcomes(small), outcomes(parseBtf(readFileSync(x86))))
  },
)

t.test('minimize --dialect converts the minimized BTF for an older loader', async (t) => {
  const [plain, converted] = ['plain.btf', 'sorted.btf'].map((name) => join(directory, name))
  await run('minimize', task, '--btf', x86, '-o', plain!)
  const dialect = ['--dialect', 'libbpf-1.7']
  t.match(await run('minimize', task, '--btf', x86, ...dialect, '-o', converted!), { status: 0 })
  const expected = Buffer.from(toDialect(parseBtf(readFileSync(plain!)), 'libbpf-1.7'))
  t.notOk(expected.equals(readFileSync(plain!)))
  t.ok(readFileSync(converted!).equals(expected))
})

t.test('a kernel that cannot be minimized does not stop the others', async (t) => {
  const out = join(directory, 'some')
  const store = await storeOf(join(directory, 'builds'), [
    { machine: 'x86_64', release: '6.1.0-2', version: '1' },
    { machine: 'i686', arch: 'x86_64', release: '6.1.0-2', version: '2' },
    { machine: 'x86_64', release: '6.1.0-3', version: '1' },
    { machine: 'x86_64', release: '6.1.0-3', version: '2' },
  ])
  const none = join(directory, 'none.btf')
  const [several, refused] = await Promise.all([
    run('minimize', task, '--store', store, '-o', out),
    run('minimize', task, ambiguous, '--btf', x86, '-o', none, '--json'),
  ])
  t.equal(several.status, 1)
  t.match(several.stderr, 'debian/12/x86_64/6.1.0-2: ambiguous: several builds with different BTF')
  t.same(filesIn(out), ['debian/12/x86_64/6.1.0-3.btf'], 'builds with the same BTF count as one')
  t.equal(refused.status, 1)
  t.match(
    refused.stderr,
    /btfmill: .*kernel-x86_64\.btf: invalid_relocation: relocation \d+ .* of section raw_tp/,
  )
  t.match(JSON.parse(refused.stdout), { kernel: x86, error: { code: 'invalid_relocation' } })
  t.notOk(existsSync(none))
})

t.test(
  'minimize writes nothing where an object, the BTF or the output is not usable',
  async (t) => {
    const out = join(directory, 'nothing.btf')
    const btf = ['--btf', x86, '-o', out]
    const [none, raw, noKernel, elsewhere] = await Promise.all([
      run('minimize', join(directory, 'nothing.o'), ...btf),
      run('minimize', task, x86, ...btf),
      run('minimize', task, '--store', store, '--arch', 'riscv64', '-o', out),
      run('minimize', task, '--btf', x86, '-o', join(x86, 'in a file')),
    ])
    for (const { status, stdout } of [none, raw, noKernel, elsewhere]) {
      t.equal(status, 1)
      t.equal(stdout, '')
    }
    t.match(none.stderr, 'it does not exist')
    t.match(raw.stderr, `btfmill: invalid_elf: ${x86}: not an ELF file`)
    t.match(noKernel.stderr, 'unknown_kernel: no kernels match --arch riscv64')
    t.match(elsewhere.stderr, `btfmill: EEXIST: file already exists, mkdir '${x86}'`)
    t.notOk(existsSync(out))
  },
)

t.test(
  'minimize needs an object and an output, and takes not both --btf and a filter',
  async (t) => {
    const [none, noOutput, both] = await Promise.all([
      run('minimize', '-o', 'x'),
      run('minimize', plain),
      run('minimize', plain, '--btf', x86, '--arch', 'x86_64', '-o', 'x'),
    ])
    t.match(none, { status: 2, stderr: "missing required argument 'object'" })
    t.match(noOutput, { status: 2, stderr: "required option '-o, --output <path>'" })
    t.match(both, {
      status: 2,
      stderr: "'--btf <kernel>' cannot be used with option '--arch <arch>'",
    })
  },
)
