// An RPM with a file over 4 GB: its payload has rpm's large-file form, which few readers support.
import { execFileSync } from 'node:child_process'
import {
  createReadStream,
  mkdtempSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { openRpm } from '../../generator/packages/rpm.ts'
import { makeRpm } from '../helpers/rpm.ts'

t.test('an RPM with a file over 4 GB is read as rpm2archive reads it', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'large-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const [large, small] = ['large', 'small'].map((name) => join(directory, name))
  writeFileSync(large!, 'vmlinux')
  truncateSync(large!, 4.5 * 1024 ** 3)
  writeFileSync(small!, 'module')
  const names = { 'usr/lib/debug/a.ko.debug': small!, 'usr/lib/debug/vmlinux': large! }
  const links = { 'usr/lib/debug/b.ko.debug': 'usr/lib/debug/a.ko.debug' }
  const file = makeRpm(directory, { files: names, links, payload: 'zstd' })
  const { payload, files } = await openRpm(createReadStream(file))
  const found: Record<string, number> = {}
  for await (const { name, regular, body } of files(payload, 8 * 1024 ** 3)) {
    let size = 0
    for await (const piece of body) size += piece.length
    if (regular) found[name.slice(1)] = size
  }
  const bytes = Object.values(found).toSorted((a, b) => a - b)
  t.same(bytes, [6, statSync(large!).size])
  execFileSync('rpm2archive', [file], { cwd: directory })
  const listed = execFileSync('bsdtar', ['-tvf', `${file}.tgz`], { encoding: 'utf8' })
  t.match(listed, new RegExp(`${statSync(large!).size} .*usr/lib/debug/vmlinux`))
  for (const name of Object.keys(found)) t.match(listed, name)
})
