// Packages for which pahole exits with status 0 and writes nothing, or BTF without types.
import { readdirSync } from 'node:fs'
import t from 'tap'
import { generateFiles } from '../../../generator/index.ts'
import { findPahole } from '../../../generator/jobs/pahole.ts'
import { caseFile } from '../../helpers/cases.ts'
import { makeRunDirectory } from '../../helpers/run-directory.ts'

t.test(
  'a pahole that writes nothing is a failure of pahole, due when pahole changes',
  async (t) => {
    const { fingerprint } = await findPahole()
    const { store, scratch, records } = await makeRunDirectory(t)
    const kernel = { distro: 'custom', version: '1', arch: 'x86_64', release: '5.3.18-57-test' }
    const summary = await generateFiles([caseFile('vmlinux-dwz')], kernel, { store, scratch })
    t.match(summary, { published: 0, failed: { pahole_failed: 1 } })
    const [record] = await records()
    t.match(record, {
      failure: { code: 'pahole_failed', message: /^pahole wrote no BTF/, retryAt: null },
      tool: { fingerprint },
    })
    t.notMatch(record?.failure?.message, /ENOENT|[/]/)
    t.same(readdirSync(scratch), [], 'no file is left')
  },
)

t.test('a module that pahole cannot encode does not withhold its kernel', async (t) => {
  const { store, scratch, records } = await makeRunDirectory(t)
  const file = caseFile('kernel-with-one-unencodable-module.deb')
  const kernel = { distro: 'custom', version: '1' }
  const summary = await generateFiles([file], kernel, { store, scratch, modules: ['*'] })
  t.match(summary, { published: 1, failed: {} })
  const [record] = await records()
  t.match(record, { btf: {}, moduleFailures: { pu: { code: 'pahole_failed' } } })
  t.same(Object.keys(record?.modules ?? {}), ['good'])
  t.same(Object.keys(record?.moduleFailures ?? {}), ['pu'])
})

t.test('a module without types of its own has BTF, and is no failure', async (t) => {
  const { store, scratch, records } = await makeRunDirectory(t)
  const file = caseFile('kernel-with-module-without-types.deb')
  const kernel = { distro: 'custom', version: '1' }
  const summary = await generateFiles([file], kernel, { store, scratch, modules: ['*'] })
  t.match(summary, { published: 1, failed: {} })
  const [record] = await records()
  t.same(record?.moduleFailures, {})
  t.match(record?.modules, { empty: { types: 0 }, good: { types: 4 } })
})
