// Tests the schemas of kernel names, and filters on them.
import t from 'tap'
import { Value } from 'typebox/value'
import { Kernel, type KernelFilter, KernelName, matchesFilter } from '../../storage/index.ts'

const kernel = { distro: 'debian', version: '12', arch: 'i686', release: '6.1.0-49-686-pae' }

t.test('KernelName requires all four parts, each a string that is not empty', async (t) => {
  t.ok(Value.Check(KernelName, kernel))
  for (const field of Object.keys(kernel)) {
    const { [field]: _, ...rest } = kernel as Record<string, string>
    t.notOk(Value.Check(KernelName, rest), `without ${field}`)
    for (const value of ['', null, 12, ['12'], {}])
      t.notOk(Value.Check(KernelName, { ...kernel, [field]: value }), `${field}: ${value}`)
  }
  for (const value of [null, undefined, 'debian', [], 1]) t.notOk(Value.Check(KernelName, value))
})

t.test('Kernel accepts a build-id of 1 to 64 bytes in lower-case hex', async (t) => {
  for (const buildId of ['c0ffee', 'ab'.repeat(20), undefined])
    t.ok(Value.Check(Kernel, { ...kernel, ...(buildId && { buildId }) }), String(buildId))
  for (const buildId of ['', 'a', 'abc', 'C0FFEE', '../x', 'ab'.repeat(65), 'ab\n', 12])
    t.notOk(Value.Check(Kernel, { ...kernel, buildId }), JSON.stringify(buildId))
})

t.test('matchesFilter requires every field of the filter to match', async (t) => {
  const wanted: KernelFilter[] = [
    {},
    kernel,
    { distro: 'debian' },
    { version: '12' },
    { arch: 'i386' },
    { arch: 'I686' },
    { release: '*-686-pae' },
    { distro: ['ubuntu', 'debian'], version: ['12', '13'], arch: ['amd64', 'x86'] },
    { release: '6.1.0-*[0-9]-686-pae' },
  ]
  for (const filter of wanted) t.ok(matchesFilter(kernel, filter), JSON.stringify(filter))
  const others: KernelFilter[] = [
    { distro: 'Debian' },
    { distro: '*' },
    { version: '1' },
    { version: [] },
    { distro: ['ubuntu', 'debian'], version: ['11', '13'] },
    { arch: 'x86_64' },
    { arch: '' },
    { release: '6.1.0' },
    { release: '' },
    { ...kernel, version: '13' },
  ]
  for (const filter of others) t.notOk(matchesFilter(kernel, filter), JSON.stringify(filter))
})
