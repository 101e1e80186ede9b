// The GitHub Action: action.yml, and the scripts of its steps, run with the variables that GitHub sets, against a service.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import t from 'tap'
import { parse } from 'yaml'
import { openStore } from '../storage/index.ts'
import { storeOf } from './helpers/command.ts'
import { coreObjects } from './helpers/core.ts'
import { startTestService } from './helpers/test-service.ts'

t.setTimeout(240_000)

interface Step {
  id?: string
  if?: string
  shell: string
  run: string
  env?: Record<string, string>
}

const ACTION = join(import.meta.dirname, '../docker/action')
const action = parse(readFileSync(join(ACTION, 'action.yml'), 'utf8'))
const steps: Step[] = action.runs.steps
const store = await storeOf(join(t.testdir(), 'store'), [
  { machine: 'x86_64', release: '6.1.0-1' },
  { machine: 'i686', release: '5.10.0-1' },
])
const { url } = await startTestService(t, undefined, { store: await openStore(store) })

/** The lines of a GITHUB_OUTPUT file. */
const outputsIn = (file: string): Record<string, string> =>
  Object.fromEntries(
    readFileSync(file, 'utf8')
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => line.split(/=(.*)/s).slice(0, 2)),
  )

/** Runs the action in a workspace as GitHub does: each step gets its expressions as variables; the first failure ends it. */
async function act(workspace: string, given: Record<string, string>) {
  const inputs: Record<string, string> = {}
  for (const [name, input] of Object.entries<{ default?: string }>(action.inputs))
    inputs[name] = given[name] ?? input.default!
  const outputs: Record<string, Record<string, string>> = {}
  const filled = (expression: string): string => {
    const [, input, step, output] =
      /^\$\{\{ (?:inputs\.([\w-]+)|steps\.(\w+)\.outputs\.(\w+)) \}\}$/.exec(expression)!
    return input ? inputs[input]! : (outputs[step!]?.[output!] ?? '')
  }
  const summary = join(workspace, 'summary.md')
  writeFileSync(summary, '')
  let log = ''
  let status: number | null = 0
  for (const step of steps) {
    if (step.if === "inputs.bundle != ''" && inputs.bundle === '') continue
    const output = join(workspace, `output-${step.id}`)
    const script = join(workspace, 'step.sh')
    writeFileSync(output, '')
    writeFileSync(script, step.run)
    const env = Object.fromEntries(
      Object.entries(step.env ?? {}).map(([name, value]) => [name, filled(value)]),
    )
    const [command, ...args] = step.shell.split(' ').map((word) => word.replace('{0}', script))
    const child = spawn(command!, args, {
      cwd: workspace,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: {
        PATH: process.env.PATH,
        HOME: workspace,
        GITHUB_ACTION_PATH: ACTION,
        GITHUB_OUTPUT: output,
        GITHUB_STEP_SUMMARY: summary,
        ...env,
      },
    })
    const read = Promise.all([text(child.stdout), text(child.stderr)])
    ;[status] = await once(child, 'close')
    log += (await read).join('')
    if (step.id) outputs[step.id] = outputsIn(output)
    if (status !== 0) break
  }
  const result = Object.fromEntries(
    Object.entries<{ value: string }>(action.outputs).map(([name, { value }]) => [
      name,
      filled(value),
    ]),
  )
  return { status, log, outputs: result, summary: readFileSync(summary, 'utf8') }
}

/** A workspace with objects. */
function workspaceWith(name: string, ...objects: string[]): string {
  const path = join(t.testdirName, name)
  mkdirSync(path)
  for (const object of objects) {
    copyFileSync(coreObjects('el').get(object)!, join(path, `${object}.bpf.o`))
  }
  return path
}

t.test('inputs reach the scripts as variables only, and every input is used', async (t) => {
  t.equal(action.runs.using, 'composite')
  for (const { run, shell } of steps) {
    t.notMatch(run, '${{', 'a value in a script would be run by the shell')
    t.equal(shell, 'sh -e {0}')
  }
  const used = steps.flatMap(({ env, if: condition }) => [...Object.values(env ?? {}), condition])
  for (const [name, { required, default: value }] of Object.entries<{
    required?: boolean
    default?: string
  }>(action.inputs)) {
    t.ok(used.join(' ').includes(`inputs.${name}`), name)
    t.ok(required || typeof value === 'string', `${name} has a default that is text`)
  }
  t.notMatch(JSON.stringify(action), 'secrets', 'it works without secrets')
})

t.test('the action checks objects, annotates them, and writes a report and a bundle', async (t) => {
  const workspace = workspaceWith('whole', 'exists', 'task')
  const filters = { release: '6.1.*', 'fail-on': 'never', bundle: 'bcc', unsupported: 'include' }
  const { status, log, outputs, summary } = await act(workspace, {
    ...filters,
    objects: '*.bpf.o',
    server: url,
  })
  t.equal(status, 0, log)
  t.match(log, '::error file=exists.bpf.c,line=105,title=missing_type::unguarded: ')
  t.match(summary, '\n    exists.bpf.o on debian/12/x86_64/6.1.0-1: no\n')
  t.same(outputs, {
    result: 'no',
    report: 'btfmill-check/check.sarif',
    json: 'btfmill-check/check.ndjson',
    bundle: 'btfmill-check/min_core_btfs.tar.gz',
  })
  const { runs } = JSON.parse(readFileSync(join(workspace, outputs.report!), 'utf8'))
  t.equal(runs[0].results[1].ruleId, 'missing_type')
  const [first] = readFileSync(join(workspace, outputs.json!), 'utf8').split('\n')
  t.match(JSON.parse(first!), { object: 'exists.bpf.o', verdict: 'no' })
  t.ok(existsSync(join(workspace, outputs.bundle!)))
})

t.test('the action fails for the verdicts that fail-on names', async (t) => {
  const [no, doubt, strict] = await Promise.all(
    [
      { objects: 'exists.bpf.o', server: url, report: 'junit', output: 'a' },
      { objects: 'task.bpf.o', server: url, output: 'b' },
      { objects: 'task.bpf.o', server: url, output: 'c', 'fail-on': 'cannot-tell' },
    ].map((inputs, n) => act(workspaceWith(`policy${n}`, 'exists', 'task'), inputs)),
  )
  t.match(no, { status: 1, outputs: { result: 'no', report: 'a/check.xml', bundle: '' } })
  t.match(no!.log, '::error::an object does not work on some kernels')
  t.match(doubt, { status: 0, outputs: { result: 'cannot_tell' } })
  t.match(strict, { status: 1, log: '::error::for some kernels it cannot be told' })
})

t.test('with a baseline the action fails only for kernels that are lost', async (t) => {
  const workspace = workspaceWith('baseline', 'exists')
  const inputs = { objects: 'exists.bpf.o', store, release: '6.1.*' }
  const first = await act(workspace, { ...inputs, 'fail-on': 'never' })
  const before = readFileSync(join(workspace, first.outputs.json!), 'utf8')
  const baseline = join(workspace, 'baseline.ndjson')
  writeFileSync(baseline, before)
  const same = await act(workspace, { ...inputs, baseline })
  t.match(same, { status: 0, outputs: { result: 'kept' } })
  writeFileSync(baseline, before.replaceAll('"verdict":"no"', '"verdict":"yes"'))
  const lost = await act(workspace, { ...inputs, baseline })
  t.match(lost, { status: 1, outputs: { result: 'lost' } })
  t.match(lost.log, 'btfmill: lost: exists.bpf.o on debian/12/x86_64/6.1.0-1')
})

t.test('the action runs no code from its inputs, and says what is wrong with them', async (t) => {
  const workspace = workspaceWith('wrong', 'task')
  const code = '$(touch pwned)`touch pwned`;touch pwned\n--help'
  const wrong = await act(workspace, { objects: code, server: url, distro: code, release: code })
  t.not(wrong.status, 0)
  t.notOk(existsSync(join(workspace, 'pwned')))
  t.match(wrong.log, /invalid_file: .*it does not exist/s)
  const cases: [Record<string, string>, string][] = [
    [{}, '::error::no kernels: expected the input server or store'],
    [{ server: url, 'fail-on': 'maybe' }, '::error::invalid fail-on'],
    [{ server: url, report: 'html' }, '::error::invalid report'],
    [{ server: url, release: '4.*' }, 'unknown_kernel: no kernels match --release 4.*'],
  ]
  for (const [inputs, message] of cases) {
    const { status, log, outputs } = await act(workspace, { objects: 'task.bpf.o', ...inputs })
    t.match({ status, log, outputs }, { status: 1, log: message, outputs: { result: '' } })
  }
})
