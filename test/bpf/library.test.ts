// The examples of bpf/README.md: each runs, prints what its last comment says, and has no type error.
import { execFileSync } from 'node:child_process'
import { cpSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { withoutHooks } from '../helpers/without-hooks.ts'

const ROOT = join(import.meta.dirname, '../..')
const README = readFileSync(join(ROOT, 'bpf/README.md'), 'utf8')

/** The fixture behind each file that an example reads. */
const FILES = {
  'vmlinux.btf': 'core/built/kernel-x86_64.btf',
  'old.btf': 'core/built/kernel-i686.btf',
  'walk.bpf.o': 'core/built/task.el.o',
  'exists.bpf.o': 'core/built/exists.el.o',
  vmlinux: 'bpf/built/vmlinux-x86_64',
  'module.btf': 'bpf/built/module-x86_64.btf',
}

interface Example {
  readonly title: string
  readonly code: string
  /** what it prints; undefined where no comment says it */
  readonly output: string | undefined
}

/** The text after `// → ` and of the comment lines that follow it. */
function outputOf(code: string): string | undefined {
  const [, first, rest = ''] = /^\/\/ → (.*)\n((?:\/\/.*\n)*)$/m.exec(code) ?? []
  if (first === undefined) return undefined
  const lines = rest.split('\n').slice(0, -1)
  return [first, ...lines.map((line) => line.replace(/^\/\/ {0,3}/, ''))].join('\n')
}

const examples: Example[] = README.split(/^## /m).flatMap((section) =>
  [...section.matchAll(/^```ts\n(.*?)^```$/gms)].map(([, code = '']) => ({
    title: section.split('\n', 1)[0]!,
    code,
    output: outputOf(code),
  })),
)

const folder = t.testdir({})
for (const [name, fixture] of Object.entries(FILES))
  cpSync(join(ROOT, 'test/fixtures', fixture), join(folder, name))
symlinkSync(join(ROOT, 'node_modules'), join(folder, 'node_modules'))
const source = JSON.stringify(join(ROOT, 'bpf/index.ts'))
const paths = examples.map(({ code }, i) => {
  const path = join(folder, `example-${i}.ts`)
  writeFileSync(path, code.replaceAll("'btfmill/bpf'", source))
  return path
})

/** Imports the examples one after another and prints, as JSON, what each gave to console.log. */
const RUNNER = `
import { format } from 'node:util'
const outputs = []
console.log = (...values) => outputs.at(-1).push(format(...values))
for (const path of process.argv.slice(2)) {
  outputs.push([])
  await import(path)
}
process.stdout.write(JSON.stringify(outputs.map((lines) => lines.join('\\n'))))
`

t.test('the README has an example for every verb, and each says what it prints', async (t) => {
  t.ok(examples.length >= 15, `${examples.length} examples`)
  for (const { title, output } of examples) t.ok(output, title)
})

t.test('every example of the README prints what its comment says', async (t) => {
  const runner = join(folder, 'run.ts')
  writeFileSync(runner, RUNNER)
  const printed = execFileSync(process.execPath, [runner, ...paths], {
    cwd: folder,
    encoding: 'utf8',
    timeout: 60_000,
  })
  const outputs: string[] = JSON.parse(printed)
  t.equal(outputs.length, examples.length)
  for (const [i, { title, output }] of examples.entries()) t.equal(outputs[i], output, title)
})

t.test('the examples of the README have no type errors', async (t) => {
  writeFileSync(
    join(folder, 'tsconfig.json'),
    JSON.stringify({
      extends: join(ROOT, 'tsconfig.json'),
      compilerOptions: { rewriteRelativeImportExtensions: false },
      include: ['example-*.ts'],
    }),
  )
  const tsc = join(ROOT, 'node_modules/.bin/tsc')
  t.doesNotThrow(() => execFileSync(...withoutHooks(tsc, ['-p', folder]), { stdio: 'inherit' }))
})

t.test('the README names every function that the library exports', async (t) => {
  const index = readFileSync(join(ROOT, 'bpf/index.ts'), 'utf8')
  const names = [...index.matchAll(/\{([^}]*)\} from/g)]
    .flatMap(([, list = '']) => list.split(','))
    .map((name) => name.trim())
    .filter((name) => /^[a-z]\w+$/.test(name) && !name.startsWith('type '))
  t.ok(names.length > 20)
  t.same(
    names.filter((name) => !README.includes(name)),
    [],
  )
})
