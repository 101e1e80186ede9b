/*
 * Kernels of public package lists, some for each form of name and version: the rules of the table give the release that
 * each reports. The columns: os-release's ID, package, version, revision, the package's architecture, `uname -r`.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { debNameOf, rpmNameOf } from '../../../generator/sources/file-name.ts'
import { namesOfRelease, namingOf } from '../../../generator/sources/naming.ts'
import { ALL_SOURCES } from '../../../generator/sources/sources.ts'

const path = join(import.meta.dirname, '../../fixtures/kernel-names.tsv')
const [, ...lines] = readFileSync(path, 'utf8').trimEnd().split('\n')

t.test('the packages of a real Debian or Ubuntu kernel can be asked for by name', async (t) => {
  const sources = ['debian-snapshot', 'ubuntu-launchpad'].map(
    (id) => ALL_SOURCES.find((source) => source.id === id)!,
  )
  for (const { distro, packages } of sources) {
    const ours = lines.map((line) => line.split('\t')).filter(([id]) => id === distro)
    for (const [, name = '', , , , release = ''] of ours)
      if (!namesOfRelease(packages, release)?.includes(name)) t.fail(`${release}: ${name}`)
    t.ok(ours.length > 10)
  }
})

t.test('the sources of a distribution name its real kernels as the kernels do', async (t) => {
  const namings = ALL_SOURCES.map((source) => ({ ...source, naming: namingOf(source.packages) }))
  for (const line of lines) {
    const [distro, name = '', version = '', revision = '', arch = '', release] = line.split('\t')
    const of =
      revision === ''
        ? debNameOf(`${name}_${version.replace(/^\d+:/, '')}_${arch}.deb`)
        : rpmNameOf(`${name}-${version}-${revision}.${arch}.rpm`)
    const sources = namings
      .filter((source) => source.distro === distro)
      .filter(({ architectures }) => Object.values(architectures).includes(arch))
    const named = sources.flatMap(({ naming }) => (of && naming(of))?.release ?? [])
    if (named.length === 0 || named.some((each) => each !== release))
      t.fail(`${line}: ${named.join(', ') || 'no source names it'}`)
  }
  t.ok(lines.length > 100)
})
