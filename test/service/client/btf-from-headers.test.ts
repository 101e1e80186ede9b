// bpf/example/btf-from-headers, the recipe that makes partial BTF on the machine itself.
import { execFile } from 'node:child_process'
import { existsSync, readFileSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'
import { parseBtf } from '../../../bpf/index.ts'
import { headersOf, UNITS } from '../../../generator/headers/header-list.ts'
import { HEADERS_RELEASE, headerFiles, writeTree } from '../../helpers/header-tree.ts'
import { tarOf } from '../../helpers/package.ts'

const SCRIPT = join(import.meta.dirname, '../../../bpf/example/btf-from-headers')

interface Ended {
  code: number
  stdout: string
  stderr: string
}

/** Runs the script under dash. */
const run = async (...args: string[]): Promise<Ended> =>
  await promisify(execFile)('dash', [SCRIPT, '--release', HEADERS_RELEASE, ...args]).then(
    (ended) => ({ ...ended, code: 0 }),
    (error) => error,
  )

t.test(
  'the recipe makes BTF of a folder once, and again when its configuration is newer',
  async (t) => {
    const directory = t.testdir({})
    const cache = join(directory, 'cache')
    const files = { 'include/linux/fs.h': '#include <linux/nowhere.h>\n' }
    const folder = writeTree(join(directory, 'headers'), headerFiles({ files }))
    const old = new Date('2026-01-01')
    utimesSync(join(folder, 'include/generated/autoconf.h'), old, old)
    const first = await run('--headers', folder, '--cache', cache)
    t.match(first, {
      code: 0,
      stdout: `${cache}/headers/${HEADERS_RELEASE}.btf\n`,
      stderr: /partial/,
    })
    const path = first.stdout.trim()
    t.ok(parseBtf(readFileSync(path)).find('task_struct', 'STRUCT'))
    const made = statSync(path).mtimeMs
    const copy = join(directory, 'copy.btf')
    t.match(await run('--headers', folder, '--cache', cache, '--output', copy), { code: 0 })
    t.equal(statSync(path).mtimeMs, made, 'from the cache')
    t.ok(readFileSync(copy).equals(readFileSync(path)))
    const later = new Date(made + 60_000)
    utimesSync(join(folder, 'include/generated/autoconf.h'), later, later)
    await run('--headers', folder, '--cache', cache)
    t.not(statSync(path).mtimeMs, made, 'made again')
  },
)

t.test('the recipe takes the tar that a kernel has of its headers', async (t) => {
  const files = headerFiles({ files: { 'include/generated/utsrelease.h': undefined } })
  const directory = t.testdir({})
  const tar = join(directory, 'kheaders.tar')
  writeFileSync(tar, await tarOf(Object.entries(files).map(([path, text]) => [`./${path}`, text])))
  const ended = await run('--headers', tar, '--cache', join(directory, 'cache'))
  t.equal(ended.code, 0, ended.stderr)
  t.ok(existsSync(ended.stdout.trim()))
})

t.test('the recipe refuses headers of another kernel, and random layouts', async (t) => {
  const refused = async (options: Parameters<typeof headerFiles>[0], message: RegExp) => {
    const folder = writeTree(t.testdir({}), headerFiles(options))
    t.match(await run('--headers', folder, '--cache', join(folder, 'cache')), {
      code: 1,
      stderr: message,
    })
  }
  await refused({ release: '6.1.0-other' }, /are of 6\.1\.0-other/)
  await refused({ options: ['RANDSTRUCT'] }, /random layouts/)
  await refused({ files: { 'include/generated/autoconf.h': undefined } }, /no configuration/)
  t.match(await run('--headers', '/nowhere', '--cache', t.testdir({})), {
    code: 1,
    stderr: /no headers/,
  })
  t.match(await run('--unknown'), { code: 2 })
})

t.test("the recipe's headers are all in the generator's list", async (t) => {
  const [, list = ''] = /^LIST='\n(.*?)'$/ms.exec(readFileSync(SCRIPT, 'utf8')) ?? []
  const known = new Set(UNITS.flatMap((unit) => headersOf(unit)))
  t.same(
    list
      .trim()
      .split(/\s+/)
      .filter((header) => !known.has(header)),
    [],
  )
})
