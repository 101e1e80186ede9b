// The main path, each command in a process of its own as users start it: generate, list, serve, fetch.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { btfmill, serve } from '../../e2e/btfmill.ts'
import { makePackage } from '../../helpers/package.ts'
import { makeVmlinux, RELEASE } from '../../helpers/vmlinux.ts'

const directory = await mkdtemp(join(tmpdir(), 'cli-'))
t.teardown(() => rm(directory, { recursive: true }))
const store = ['--store', `file:${join(directory, 'store')}`]
const MAIN = join(import.meta.dirname, '../../../service/cli/main.ts')

const [vmlinux, input, shims] = ['vmlinux', 'input', 'shims'].map((name) =>
  join(directory, name),
) as [string, string, string]
mkdirSync(input)
mkdirSync(shims)
makeVmlinux(vmlinux)
const good = makePackage(input, vmlinux)
const shim = makePackage(shims, undefined, { release: '6.1.0-8-test' })
const named = [
  '--distro',
  'debian',
  '--distro-version',
  '12',
  '--arch',
  'i686',
  '--release',
  RELEASE,
]

/** Runs a command to its end, whatever its exit status. */
async function run(...args: string[]): Promise<{ status: number; stdout: string; stderr: string }> {
  const child = spawn(process.execPath, [MAIN, ...args], { timeout: 60_000 })
  let [stdout, stderr] = ['', '']
  child.stdout.on('data', (piece) => (stdout += piece))
  child.stderr.on('data', (piece) => (stderr += piece))
  const [status] = await once(child, 'close')
  return { status, stdout, stderr }
}

t.test('a kernel travels from a package through generate, list and serve to fetch', async (t) => {
  const made = await run(
    'generate',
    ...store,
    '--distro',
    'debian',
    '--distro-version',
    '12',
    good,
    shim,
  )
  t.equal(made.status, 1, 'one package has no vmlinux')
  t.match(
    made.stdout,
    /^1 published; 0 there already; 1 failed; \d+\.\d MB of packages read\n[\s\S]*\nnever +no_vmlinux +1 /,
  )

  const rows = (await btfmill('list', ...store)).trimEnd().split('\n')
  t.equal(rows.length, 3, 'a header and two kernels')
  t.match(
    rows.find((row) => row.includes(RELEASE)),
    /debian +12 +i686 .* available +\d+ bytes, \d+ types/,
  )
  t.match(
    rows.find((row) => row.includes('6.1.0-8')),
    / failed +no_vmlinux: /,
  )
  const listed = (await btfmill('list', '--json', ...store, ...named)).trimEnd().split('\n')
  t.equal(listed.length, 1)
  const record = JSON.parse(listed[0]!)
  t.match(record, {
    state: 'available',
    kernel: { release: RELEASE },
    btf: { byteOrder: 'little' },
  })

  const server = await serve(`file:${join(directory, 'store')}`)
  const output = join(directory, 'out.btf')
  const stdout = await btfmill('fetch', '--server', server.url, ...named, '-o', output)
  t.equal(stdout, `${output}\n`, 'the path, and nothing else')
  t.equal(readFileSync(output).length, record.btf.size)

  const none = await run(
    'fetch',
    '--server',
    server.url,
    ...named.with(-1, 'none'),
    '-o',
    `${output}2`,
  )
  t.equal(none.status, 1)
  t.match(none.stderr, /there is no BTF for debian 12 i686 none/)
  t.equal(none.stdout, '')
  t.notOk(existsSync(`${output}2`))
  t.equal(await server.stop(), 0)
})

t.test(
  'serve remembers beside a store on disk, however its path is written, and only there',
  async (t) => {
    for (const path of ['plain', 'slash/', './dots/../dots']) {
      const server = await serve(`${directory}/${path}`)
      t.equal(await server.stop(), 0)
    }
    for (const name of ['plain', 'slash', 'dots'])
      t.ok(existsSync(join(directory, `${name}-state`)), name)
    const server = await serve('memory:')
    t.equal(await server.stop(), 0)
    t.notOk(existsSync('memory:-state'))
  },
)

t.test('list reports a damaged record, and lists the others', async (t) => {
  const bad = join(directory, 'store/kernels/debian/12/i686/damaged')
  mkdirSync(bad, { recursive: true })
  writeFileSync(join(bad, 'x.json'), '{"schema":1')
  t.teardown(() => rmSync(bad, { recursive: true }))
  const { status, stdout, stderr } = await run('list', ...store)
  t.equal(status, 1)
  t.match(stderr, /damaged\/x\.json/)
  t.match(stdout, RELEASE)
})

t.test('wrong usage ends with 2 and a message', async (t) => {
  const wrong = [
    ['nothing'],
    ['generate', '--limit', '0'],
    ['generate', '--jobs', 'x'],
    ['serve', '--listen', 'x:y'],
    ['serve', '--listen', '127.0.0.1:65536'],
    ['list', '--unknown'],
  ]
  for (const args of wrong) {
    const { status, stderr } = await run(...args)
    t.equal(status, 2, args.join(' '))
    t.not(stderr, '')
  }
  const help = await run('--help')
  t.equal(help.status, 0)
  for (const command of ['generate', 'serve', 'list', 'fetch', 'dump'])
    t.match(help.stdout, command)
})

t.test('a store that cannot be opened is an error of one line', async (t) => {
  for (const url of [`file:${vmlinux}`, 'ftp://x/y', 'nonsense:']) {
    const { status, stderr } = await run('list', '--store', url)
    t.equal(status, 1, url)
    t.match(stderr, /^btfmill: .+\n$/, url)
  }
})
