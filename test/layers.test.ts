// Asserts the import rules of CONTRIBUTING: which folder may import which, and that they meet only through index.ts.
import { globSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import t from 'tap'

const FOLDERS = ['bpf', 'storage', 'generator', 'service'] as const
type Folder = (typeof FOLDERS)[number]

const MAY_IMPORT: Record<Folder, readonly Folder[]> = {
  bpf: [],
  storage: [],
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
  rejects('storage/disk.ts', "import type { Btf } from '../bpf/index.ts'")
  rejects('generator/check.ts', "import { parseBtf } from '../bpf/btf.ts'")
  rejects('generator/check.ts', "import {\n  buildApp,\n} from '../service/index.ts'")
  rejects('service/app.ts', "const generator = await import('../generator/index.ts')")
  t.same(
    violations('service/cli/generate.ts', "import { generate } from '../../generator/index.ts'"),
    [],
  )
  t.same(violations('service/app.ts', "export { parseBtf } from '../bpf/index.ts'"), [])
})

t.test('folders are flat', async (t) => {
  const nested = FOLDERS.flatMap((folder) => globSync(`${folder}/*/**/*.ts`)).filter(
    (file) => !file.startsWith('service/cli/'),
  )
  t.same(nested, [])
})
