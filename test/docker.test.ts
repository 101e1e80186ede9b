// The Compose and Kubernetes files: what they promise beyond their schemas, which test/long/manifests.test.ts checks.
import { execFileSync } from 'node:child_process'
import { chmodSync, globSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { parse, parseAllDocuments } from 'yaml'
import { archivesAtOnce, defaultsFor, mostMemory } from '../service/memory.ts'

const DOCKER = join(import.meta.dirname, '../docker')
const compose = parse(readFileSync(join(DOCKER, 'compose.yml'), 'utf8'), { merge: true })
const manifests = globSync(join(DOCKER, 'kubernetes/*.yaml'))
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
    const most = mostMemory(defaultsFor(limit, processors), archivesAtOnce(limit))
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
