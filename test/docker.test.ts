// The Compose, Kubernetes and systemd files: what they promise beyond their schemas, which test/long/manifests.test.ts
// checks. The scripts in them run here.
import { execFile, execFileSync, spawnSync } from 'node:child_process'
import {
  chmodSync,
  globSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { machine, release } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'
import { parse, parseAllDocuments } from 'yaml'
import { archivesAtOnce, defaultsFor, indexFits, mostMemory } from '../service/memory.ts'
import { canonicalArch } from '../storage/index.ts'
import { COMMAND } from './e2e/btfmill.ts'
import { btfOf, RAW, recordOf, startTestService } from './helpers/test-service.ts'

const run = promisify(execFile)

const DOCKER = join(import.meta.dirname, '../docker')
const compose = parse(readFileSync(join(DOCKER, 'compose.yml'), 'utf8'), { merge: true })
const manifests = globSync(join(DOCKER, 'kubernetes/**/*.yaml'))
  .sort()
  .flatMap((file) => parseAllDocuments(readFileSync(file, 'utf8')).map((doc) => doc.toJS()))

const GIB = 1024 ** 3

/** The containers of a kind of workload, by name. */
const containers = new Map(
  manifests
    .flatMap(({ spec }) => {
      const { template } = spec?.jobTemplate?.spec ?? spec ?? {}
      return template?.spec.containers ?? []
    })
    .map((container) => [container.name, container]),
)

t.test('the queue has a password in Compose, and its URL is a secret in Kubernetes', async (t) => {
  const { redis, worker, discover } = compose.services
  const password = redis.command[redis.command.indexOf('--requirepass') + 1]
  t.match(password, /^\$\{BTFMILL_QUEUE_PASSWORD/)
  for (const { command } of [worker, discover])
    t.ok(command.includes(`redis://:${password}@redis:6379`))
  for (const name of ['worker', 'discover']) {
    const { args, envFrom } = containers.get(name)
    t.ok(args.includes('$(BTFMILL_QUEUE)'), name)
    t.match(envFrom.at(-1), { secretRef: { name: 'btfmill-queue' } }, name)
  }
  t.notMatch(JSON.stringify(containers.get('service')), /queue/, 'the service does not need it')
  t.notMatch(JSON.stringify(manifests), /redis:\/\//, 'no URL of a queue is in a file')
})

t.test('the defaults of the service fit into the memory that Kubernetes gives it', async (t) => {
  const [, digits] = /^(\d+)Gi$/.exec(containers.get('service').resources.limits.memory)!
  const limit = Number(digits) * GIB
  for (const processors of [1, 2, 4, 64]) {
    const most = mostMemory(defaultsFor(limit, processors), archivesAtOnce(limit), indexFits(limit))
    t.ok(most <= limit, `${processors} processors: ${most} of ${limit}`)
  }
})

t.test('the generator image is built with the keys that KEYS names', async (t) => {
  const dockerfile = readFileSync(join(DOCKER, 'Dockerfile'), 'utf8')
  const [, script = ''] = /^ARG KEYS\n(?:ARG .*\n)*RUN ((?:.*\\\n)*.*)$/m.exec(dockerfile) ?? []
  const bin = t.testdir({})
  writeFileSync(join(bin, 'btfmill'), '#!/bin/sh\necho "$@"\n')
  chmodSync(join(bin, 'btfmill'), 0o755)
  const commandFor = (KEYS?: string) => {
    const env = { PATH: `${bin}:${process.env.PATH}`, ...(KEYS !== undefined && { KEYS }) }
    return execFileSync('sh', ['-euc', script.replaceAll('\\\n', '')], { env })
      .toString()
      .trim()
  }
  const directory = '/usr/local/share/btfmill/keys'
  const fetch = `sources --fetch-keys --keys ${directory}`
  t.equal(commandFor(), '')
  t.equal(commandFor(''), '')
  t.equal(commandFor('all'), fetch)
  t.equal(commandFor('alma rocky'), `${fetch} --source alma --source rocky`)
  const input = readFileSync(join(DOCKER, '../service/cli/input.ts'), 'utf8')
  t.ok(input.includes(`'${directory}'`), 'generate looks there')
})
const UNITS = globSync(join(DOCKER, 'systemd/*')).sort()

/** The values of a setting of a unit, as systemd reads them: a line that begins with # is a comment. */
const valuesIn = (unit: string, name: string): string[] =>
  [
    ...readFileSync(join(DOCKER, 'systemd', unit), 'utf8').matchAll(
      new RegExp(`^${name}=(.*)$`, 'gm'),
    ),
  ].map(([, value]) => value!)

t.test('systemd accepts the units, and rates each as little exposed', async (t) => {
  t.ok(UNITS.length >= 4)
  const { stderr } = await run('systemd-analyze', ['verify', '--man=no', ...UNITS])
  t.equal(stderr, '')
  for (const unit of UNITS.filter((path) => path.endsWith('.service'))) {
    const args = ['security', '--offline=yes', '--threshold=22', '--no-pager', unit]
    const { status, stdout } = spawnSync('systemd-analyze', args, { encoding: 'utf8' })
    t.equal(status, 0, `${unit}: ${stdout.trimEnd().split('\n').at(-1)}`)
  }
})

t.test('serve and the nightly generation share a user and a store', async (t) => {
  for (const name of ['User', 'DynamicUser', 'StateDirectory', 'WorkingDirectory', 'UMask'])
    t.same(valuesIn('btfmill-generate.service', name), valuesIn('btfmill.service', name), name)
  const stores = ['btfmill.service', 'btfmill-generate.service'].map((unit) =>
    /BTFMILL_STORE=\S+/.exec(valuesIn(unit, 'Environment').join(' ')),
  )
  t.same(stores[0], stores[1])
  t.match(valuesIn('btfmill-generate.timer', 'Persistent'), ['yes'])
})

t.test('the commands and flags in the units and in the DaemonSet exist', async (t) => {
  const texts = [...UNITS.map((unit) => readFileSync(unit, 'utf8')), JSON.stringify(manifests)]
  const calls = [...texts.join('\n').matchAll(/\bbtfmill ([a-z]+)((?: --[a-z-]+(?: \w+)?)*)/g)]
  const used = new Map<string, string[]>()
  for (const [, command, flags] of calls.filter(([text]) => !/^btfmill (of|serves)/.test(text)))
    used.set(command!, [...(used.get(command!) ?? []), ...(flags!.match(/--[a-z-]+/g) ?? [])])
  t.same([...used.keys()].sort(), ['fetch', 'generate', 'serve'])
  t.ok(used.get('fetch')!.length >= 2)
  for (const [command, flags] of used) {
    const { stdout } = await run(COMMAND[0], [COMMAND[1], command, '--help'])
    for (const flag of flags)
      t.match(stdout, new RegExp(`^ *${flag}\\b`, 'm'), `${command} ${flag}`)
  }
})

t.test(
  "btf-fetch.service links this kernel's BTF, and another start replaces the link",
  async (t) => {
    const here = { arch: canonicalArch(machine()), release: release() }
    const { url } = await startTestService(t, async (store) => [
      recordOf(here, { btf: await btfOf(store, RAW.little) }),
    ])
    const directory = t.testdir({
      bin: {},
      cache: {},
      run: {},
      root: { etc: { 'os-release': 'ID=debian\nVERSION_ID="12"\n' } },
    })
    symlinkSync(
      join(import.meta.dirname, '../bpf/example/btf-fetch'),
      join(directory, 'bin/btf-fetch'),
    )
    const [, script] = /^\/bin\/sh -euc '(.*)'$/.exec(
      valuesIn('btf-fetch.service', 'ExecStart')[0]!,
    )!
    const start = (root: string, server = url) =>
      run('/bin/sh', ['-euc', script!.replaceAll('$$', '$')], {
        env: {
          PATH: `${join(directory, 'bin')}:/usr/bin:/bin`,
          BTFMILL_ROOT: root,
          BTFMILL_CACHE: join(directory, 'cache'),
          BTFMILL_SERVER: server,
          RUNTIME_DIRECTORY: join(directory, 'run'),
        },
      })
    const link = join(directory, 'run/vmlinux')

    await start(join(directory, 'root'))
    t.ok(lstatSync(link).isSymbolicLink())
    t.ok(readFileSync(link).equals(RAW.little))

    const own = join(directory, 'root/sys/kernel/btf/vmlinux')
    mkdirSync(join(own, '..'), { recursive: true })
    writeFileSync(own, RAW.big)
    await start(join(directory, 'root'))
    t.equal(realpathSync(link), realpathSync(own), "the kernel's own BTF comes first")
    t.same(readdirSync(join(directory, 'run')), ['vmlinux'])

    rmSync(join(directory, 'root/sys'), { recursive: true })
    rmSync(join(directory, 'cache'), { recursive: true })
    const nothing = await startTestService(t)
    await t.rejects(
      start(join(directory, 'root'), nothing.url),
      { code: 1 },
      'without BTF the unit fails',
    )
  },
)

t.test(
  'the DaemonSet puts the file that `fetch` prints into the directory of the node',
  async (t) => {
    const { spec } = manifests.find(({ kind }) => kind === 'DaemonSet')!.spec.template
    const [{ command, volumeMounts }] = spec.initContainers
    const [shell, flags, script] = command
    const directory = t.testdir({ bin: {}, run: {}, 'kernel.btf': 'BTF' })
    const fake = join(directory, 'bin/btfmill')
    writeFileSync(fake, `#!/bin/sh\necho ${join(directory, 'kernel.btf')}\n`)
    chmodSync(fake, 0o755)
    const env = { PATH: `${join(directory, 'bin')}:/usr/bin:/bin` }
    const start = () =>
      execFileSync(shell, [flags, script.replaceAll('/run/btfmill', join(directory, 'run'))], {
        env,
      })
    start()
    start()
    t.same(readdirSync(join(directory, 'run')), ['vmlinux'])
    t.equal(lstatSync(join(directory, 'run/vmlinux')).mode & 0o777, 0o644)
    t.equal(readFileSync(join(directory, 'run/vmlinux'), 'utf8'), 'BTF')

    writeFileSync(fake, '#!/bin/sh\nexit 1\n')
    t.throws(start, 'it fails where there is no BTF, and is started again')
    const paths = volumeMounts.map(({ mountPath }: { mountPath: string }) => mountPath)
    for (const path of ['/etc/os-release', '/run/btfmill', '/var/cache/btfmill'])
      t.ok(paths.includes(path), path)
  },
)
