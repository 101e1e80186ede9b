// Asserts the import rules of CONTRIBUTING: which folder may import which, and that they meet only through index.ts.
import { globSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import t from 'tap'

const FOLDERS = ['bpf', 'storage', 'generator', 'service'] as const
type Folder = (typeof FOLDERS)[number]

const MAY_IMPORT: Record<Folder, readonly Folder[]> = {
  bpf: [],
  storage: ['bpf'],
  generator: ['bpf', 'storage'],
  service: ['bpf', 'storage'],
}

/** The composition roots: they alone put the generator together with the service. */
const ROOT = /^service\/(cli\/[^/]+|main)\.ts$/

/** bpf/ is pure: bytes in, values out. */
const PURE_FORBIDDEN = /^node:|^[a-z@]/

const IMPORT =
  /(?:^|\n)\s*(?:import|export)\s[^'"`;]*?from\s+['"]([^'"]+)['"]|(?:^|[^.\w])import\(\s*['"]([^'"]+)['"]\s*\)|(?:^|\n)\s*import\s+['"]([^'"]+)['"]/g

export const importsOf = (text: string): string[] =>
  [...text.matchAll(IMPORT)].map((match) => match[1] ?? match[2] ?? match[3] ?? '')

const folderOf = (path: string): string => path.split('/')[0] ?? ''

export const violations = (file: string, text: string): string[] => {
  const from = folderOf(file) as Folder
  const found: string[] = []
  for (const specifier of importsOf(text)) {
    if (!specifier.startsWith('.')) {
      if (from === 'bpf' && PURE_FORBIDDEN.test(specifier))
        found.push(`${file}: bpf/ is pure, but imports ${specifier}`)
      continue
    }
    const target = normalize(join(dirname(file), specifier))
    const to = folderOf(target) as Folder
    if (to === from) continue
    const allowed = MAY_IMPORT[from].includes(to) || (to === 'generator' && ROOT.test(file))
    if (!allowed) found.push(`${file}: ${from}/ may not import ${target}`)
    else if (target !== `${to}/index.ts`)
      found.push(`${file}: imports ${target} past ${to}/index.ts`)
  }
  return found
}

t.test('folders import only what the design allows, and only through index.ts', async (t) => {
  const files = FOLDERS.flatMap((folder) => globSync(`${folder}/**/*.ts`))
  t.ok(files.length > 10, `${files.length} files read`)
  t.same(
    files.flatMap((file) => violations(file, readFileSync(file, 'utf8'))),
    [],
  )
})

t.test('each rule finds its violation', async (t) => {
  const rejects = (file: string, text: string) =>
    t.equal(violations(file, text).length, 1, `${file}: ${text}`)
  rejects('bpf/btf.ts', "import { open } from 'node:fs'")
  rejects('bpf/btf.ts', "import { openStore } from '../storage/index.ts'")
  rejects('storage/disk.ts', "import type { Source } from '../generator/index.ts'")
  rejects('storage/disk.ts', "import type { Btf } from '../bpf/btf.ts'")
  rejects('generator/check.ts', "import { parseBtf } from '../bpf/btf.ts'")
  rejects('generator/check.ts', "import {\n  buildApp,\n} from '../service/index.ts'")
  rejects('service/app.ts', "const generator = await import('../generator/index.ts')")
  t.same(
    violations('service/cli/generate.ts', "import { generate } from '../../generator/index.ts'"),
    [],
  )
  t.same(violations('service/app.ts', "export { parseBtf } from '../bpf/index.ts'"), [])
})

const ONE_LEVEL = ['generator', 'service'] as const

t.test('bpf and storage are flat, and the other two have one level of folders', async (t) => {
  t.same(globSync('{bpf,storage}/*/**/*.ts'), [])
  t.same(globSync(`{${ONE_LEVEL.join()}}/*/*/**/*.ts`), [])
})

/** Folders of a layer, lowest first: a file may import from its own folder, from folders before it, and from the ground. */
const ORDER: Record<(typeof ONE_LEVEL)[number], readonly string[]> = {
  generator: ['', 'sources', 'packages', 'headers', 'indexes', 'jobs', 'prove'],
  service: [
    '', // ground floor
    ...[
      'kernel',
      'pack',
      'threads',
      'declarations',
      'client',
      'cache',
      'upstream',
      'objects',
      'bundle',
      'demand',
      'page',
      'http',
      'routes',
    ],
  ],
}

/** Files on the ground floor that put the others together. */
const COMPOSITION = /^(service|generator)\/index\.ts$|^service\/(app|server)\.ts$/

const roomOf = (path: string): string => path.split('/').slice(1, -1).join('/')

export const climbs = (file: string, text: string): string[] => {
  const layer = folderOf(file) as (typeof ONE_LEVEL)[number]
  if (COMPOSITION.test(file) || file.startsWith('service/cli/')) return []
  return importsOf(text)
    .filter((specifier) => specifier.startsWith('.'))
    .map((specifier) => normalize(join(dirname(file), specifier)))
    .filter((target) => folderOf(target) === layer)
    .filter((target) => {
      if (COMPOSITION.test(target) || roomOf(target) === 'cli') return true
      const [from, to] = [file, target].map((path) => ORDER[layer].indexOf(roomOf(path)))
      return to! < 0 || to! > from!
    })
    .map((target) => `${file}: may not import ${target}`)
}

t.test('no import climbs from a lower folder of a layer to a higher one', async (t) => {
  const files = ONE_LEVEL.flatMap((layer) => globSync(`${layer}/**/*.ts`))
  t.same(
    files.flatMap((file) => climbs(file, readFileSync(file, 'utf8'))),
    [],
  )
  t.equal(climbs('service/kernel/lookup.ts', "import { a } from '../http/send.ts'").length, 1)
  t.equal(climbs('generator/packages/fetch.ts', "import { a } from '../jobs/job.ts'").length, 1)
  t.equal(climbs('service/http/send.ts', "import { a } from '../app.ts'").length, 1)
})

t.test('only app.ts imports routes, and only routes and http know Fastify requests', async (t) => {
  const files = globSync('service/**/*.ts')
  const importers = files.filter(
    (file) =>
      roomOf(file) !== 'routes' &&
      importsOf(readFileSync(file, 'utf8')).some((specifier) => specifier.includes('/routes/')),
  )
  t.same(importers, ['service/app.ts'])
  const knowing = files.filter((file) =>
    /\bFastify(Request|Reply)\b/.test(readFileSync(file, 'utf8')),
  )
  t.same(
    knowing.filter((file) => !['routes', 'http'].includes(roomOf(file))),
    [],
  )
})

/** The first circle of imports among files, as the path that closes it. */
const circleIn = (imports: ReadonlyMap<string, readonly string[]>): string[] | undefined => {
  const done = new Set<string>()
  const visit = (file: string, path: readonly string[]): string[] | undefined => {
    if (path.includes(file)) return [...path.slice(path.indexOf(file)), file]
    if (done.has(file)) return undefined
    for (const target of imports.get(file) ?? []) {
      const circle = visit(target, [...path, file])
      if (circle) return circle
    }
    done.add(file)
    return undefined
  }
  for (const file of imports.keys()) {
    const circle = visit(file, [])
    if (circle) return circle
  }
  return undefined
}

t.test('no file imports itself through others', async (t) => {
  for (const layer of FOLDERS) {
    const files = globSync(`${layer}/**/*.ts`)
    const imports = files.map((file): [string, string[]] => [
      file,
      importsOf(readFileSync(file, 'utf8'))
        .filter((specifier) => specifier.startsWith('.'))
        .map((specifier) => normalize(join(dirname(file), specifier))),
    ])
    t.same(circleIn(new Map(imports)), undefined, layer)
  }
  t.same(
    circleIn(
      new Map([
        ['a', ['b']],
        ['b', ['c']],
        ['c', ['b']],
      ]),
    ),
    ['b', 'c', 'b'],
  )
})

t.test('no type name stands for two things', async (t) => {
  const files = FOLDERS.flatMap((folder) => globSync(`${folder}/**/*.ts`))
  const places = new Map<string, Set<string>>()
  for (const file of files)
    for (const [, name = ''] of readFileSync(file, 'utf8').matchAll(
      /^(?:export )?(?:abstract )?(?:class|interface|type) (\w+)/gm,
    ))
      places.set(name, (places.get(name) ?? new Set()).add(file))
  t.ok(places.size > 100, `${places.size} names read`)
  t.same(
    [...places].filter(([, at]) => at.size > 1).map(([name, at]) => [name, ...at]),
    [],
  )
})
