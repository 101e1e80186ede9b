// Commands with --server: the same output as over the service's store, and coded errors for a server that lies.
import { execFileSync } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Ajv2020 } from 'ajv/dist/2020.js'
import t from 'tap'
import { Tokens } from '../../../service/http/token.ts'
import { openStore } from '../../../storage/index.ts'
import { type Ended, run, storeOf } from '../../helpers/command.ts'
import { coreObjects, littleKernels } from '../../helpers/core.ts'
import { startTestService } from '../../helpers/test-service.ts'

t.setTimeout(300_000)

const directory = t.testdir()
const object = (name: string) => coreObjects('el').get(name)!
const [task, exists] = [object('task'), object('exists')]
const x86 = littleKernels().get('x86_64')!
const list = join(directory, 'list')
writeFileSync(list, 'task_struct.pid\ntask_struct\n')
const store = await storeOf(join(directory, 'store'), [
  { machine: 'x86_64', release: '6.1.0-1' },
  { machine: 'i686', release: '5.10.0-1+deb11' },
  { machine: 's390x', release: '6.1.0-2' },
  { machine: 'x86_64', release: '6.1.0-4', version: '1' },
  { machine: 'i686', arch: 'x86_64', release: '6.1.0-4', version: '2' },
])
const { url } = await startTestService(t, undefined, { store: await openStore(store) })

/** Runs a command over the store and over the service: what it prints names the source in one way. */
async function both(...args: string[]): Promise<[Ended, Ended]> {
  const [here, there] = await Promise.all([
    run(...args, '--store', store),
    run(...args, '--server', url),
  ])
  return [here, { ...there, stderr: there.stderr.replaceAll(url, store) }]
}

const SAME: Record<string, readonly (readonly string[])[]> = {
  list: [
    ['list', '--json'],
    ['list', '--arch', 'amd64', '--arch', 'i686', '--release', '*+deb11'],
  ],
  dump: [
    ['dump', '5.10.0-1+deb11'],
    ['dump', 'debian/12/amd64/6.1.0-1', '--type', 'task_struct'],
    ['dump', '6.1.0-*', '--json'],
    ['dump', 'debian/12/x86_64/6.1.0-9'],
  ],
  diff: [['diff', '6.1.0-1', '5.10.0-1+deb11']],
  offsets: [
    ['offsets', list],
    ['offsets', list, '--arch', 'amd64', '--format', 'datadog'],
    ['offsets', list, '--btf', '6.1.0-1'],
    ['offsets', list, '--release', '4.*'],
  ],
  check: [
    ['check', task, exists, '--json'],
    ['check', task, '--distro', 'debian', '--arch', 'amd64', '--arch', 'i686', '--all'],
    ['check', object('reachability'), '--all-programs', '--release', '6.1.0-1', '--json'],
    ['check', exists, '--format', 'sarif', '--release', '6.1.0-1'],
    ['check', task, '--btf', '6.1.0-1', '--json'],
    ['check', task, '--arch', 'x86_64', '--arch', 'riscv64'],
  ],
}

for (const [command, cases] of Object.entries(SAME))
  t.test(`${command} prints the same over a service as over its store`, async (t) => {
    for (const args of cases) {
      const [here, there] = await both(...args)
      t.same(there, here, args.join(' '))
      t.ok(here.stdout + here.stderr, 'it prints something')
    }
  })

const filesIn = (path: string) =>
  readdirSync(path, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .map((file) => [file.slice(path.length + 1), readFileSync(file, 'base64')])
    .sort()

t.test('minimize writes the same files over a service as over its store', async (t) => {
  const cases = [
    [task],
    [task, exists, '--release', '6.1.0-*', '--json'],
    [task, '--btf', '6.1.0-1'],
    [task, '--dialect', 'libbpf-1.7'],
  ]
  for (const [n, args] of cases.entries()) {
    const [here, there] = [join(directory, `here${n}`), join(directory, `there${n}`)]
    const [local, remote] = await Promise.all([
      run('minimize', ...args, '--store', store, '-o', `${here}/btf`),
      run('minimize', ...args, '--server', url, '-o', `${there}/btf`),
    ])
    const { status, stdout, stderr } = remote
    t.same({ status, stdout: stdout.replaceAll(there, here), stderr }, local)
    t.same(filesIn(there), filesIn(here))
  }
})

t.test('export writes the same bundle over a service, with its manifest', async (t) => {
  const cases = [
    ['--profile', 'tree'],
    ['--profile', 'bcc', '--object', task, '--arch', 'amd64'],
    ['--profile', 'tree', '--object', task, '--unsupported', 'fail'],
    ['--profile', 'tree', '--release', '4.*'],
    ['--profile', 'tree', '--object', x86],
  ]
  for (const [n, args] of cases.entries()) {
    const [here, there] = ['here', 'there'].map((name) => join(directory, `bundle-${name}${n}`))
    for (const path of [here!, there!]) mkdirSync(path)
    const [local, remote] = await Promise.all([
      run('export', ...args, '--store', store, '-o', `${here}/b.tar`),
      run('export', ...args, '--server', url, '-o', `${there}/b.tar`),
    ])
    const { status, stdout, stderr } = remote
    t.same({ status, stdout: stdout.replaceAll(there!, here!), stderr }, local, args.join(' '))
    t.same(
      readdirSync(there!).map((file) => file.replace(/\..*tmp/, 'temporary')),
      readdirSync(here!),
    )
    if (status === 0) t.same(membersOf(`${there}/b.tar`), membersOf(`${here}/b.tar`))
  }
  const piped = await run('export', '--profile', 'btfhub', '--server', url, '-o', '-')
  t.match(piped, { status: 0, stderr: '-: 3 kernels, 1 left out\n' })
  t.match(piped.stdout, 'debian/12/x86_64/6.1.0-1.btf.tar.xz')
  const key = await run('export', '--profile', 'tree', '--server', url, '--secret-key', 'x')
  t.match(key, { status: 2, stderr: '--secret-key signs what is made here' })
})

const membersOf = (archive: string): string =>
  execFileSync('sh', ['-c', 'tar --to-stdout -xf "$1" | sha256sum && tar -tf "$1"', '-', archive], {
    encoding: 'utf8',
  })

t.test('a private service is read with the token in a file', async (t) => {
  const tokens = join(directory, 'tokens.json')
  const { stdout: token } = await run('token', 'ci', '--tokens', tokens)
  const file = join(directory, 'token')
  writeFileSync(file, token)
  const settings = { read: 'token', tokens } as const
  const opened = await Tokens.open(tokens)
  const home = await openStore(store)
  const { url } = await startTestService(t, undefined, { store: home, settings, tokens: opened })
  const refused = await run('check', task, '--server', url)
  t.match(refused, { status: 1, stdout: '', stderr: 'btfmill: unauthorized: token required' })
  const read = await run(
    'check',
    task,
    '--release',
    '6.1.0-1',
    '--server',
    url,
    '--token-file',
    file,
  )
  t.match(read, { status: 0, stderr: '' })
})

t.test('--server and --store exclude each other', async (t) => {
  const { status, stderr } = await run('list', '--server', url, '--store', store)
  t.match({ status, stderr }, { status: 2, stderr: 'expected --store or --server' })
  const wrong = await run('list', '--server', 'example.com')
  t.match(wrong, { status: 1, stderr: 'invalid_request: invalid server: expected http://' })
})

t.test('each line of check --json matches the schema that /openapi.json publishes', async (t) => {
  // biome-ignore lint/suspicious/noExplicitAny: a document
  const { paths } = (await (await fetch(`${url}/openapi.json`)).json()) as any
  const { content } = paths['/v1/check'].post.responses[200]
  const [schema] = content['application/x-ndjson'].schema.contentSchema.anyOf
  const validate = new Ajv2020({ strict: false, validateFormats: false }).compile(schema)
  const objects = ['exists', 'task', 'limit', 'reachability'].map(object)
  const { stdout } = await run('check', ...objects, '--store', store, '--json')
  const lines = stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))
  t.equal(lines.length, 5 * objects.length)
  t.ok(lines.some(({ error }) => error) && lines.some(({ programs }) => programs))
  for (const line of lines) {
    t.ok(validate(line), JSON.stringify(validate.errors))
    t.same(
      Object.keys(line).filter((key) => !(key in schema.properties)),
      [],
    )
  }
})
