// The description of the machine's kernel, from files as distributions write them.
import { mkdirSync, writeFileSync } from 'node:fs'
import { release } from 'node:os'
import { dirname, join } from 'node:path'
import t from 'tap'
import { parseOsRelease, thisKernel } from '../../../service/client/host.ts'

const note = Buffer.from('040000000400000003000000474e5500deadbeef', 'hex')

const rootWith = (dir: string, files: Record<string, string | Buffer>): string => {
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(dir, path)), { recursive: true })
    writeFileSync(join(dir, path), text)
  }
  return dir
}

t.test('os-release is read in every style that distributions use', async (t) => {
  const forms = {
    'ID=debian\nVERSION_ID="12"\n': ['debian', '12'],
    'VERSION_ID="7"\nID="centos"\n': ['centos', '7'],
    "ID='sles'\nVERSION_ID='15.4'": ['sles', '15.4'],
    'ID=debian\r\nVERSION_ID=10\r\n': ['debian', '10'],
    'ID=debian\nVERSION_CODENAME=trixie\n': ['debian', 'trixie'],
    'ID=arch\n': ['arch', 'rolling'],
    'ID=Ubuntu\nID=ubuntu\nVERSION_ID="20.04"': ['ubuntu', '20.04'],
    '# ID=no\n  ID=no\nnonsense\n=\nID=ol\nVERSION_ID="8.9"': ['ol', '8.9'],
    '': ['linux', 'rolling'],
  }
  for (const [text, [distro, version]] of Object.entries(forms))
    t.match(
      thisKernel(rootWith(t.testdir({}), { 'etc/os-release': text })),
      { distro, version },
      text,
    )
})

t.test('os-release is parsed, and never run by a shell', async (t) => {
  const values = parseOsRelease('ID="$(touch /tmp/x)`id`\\"\\$"\nNAME="a b"')
  t.same(values, { ID: '$(touch /tmp/x)`id`"$', NAME: 'a b' })
})

t.test('/usr/lib/os-release is the fallback, and an unreadable build-id is left out', async (t) => {
  const root = rootWith(t.testdir({}), {
    'usr/lib/os-release': 'ID=debian\nVERSION_ID=12\n',
    'sys/kernel/notes': note,
  })
  t.match(thisKernel(root), { distro: 'debian', buildId: 'deadbeef', release: release() })
  const broken = rootWith(t.testdir({}), { 'sys/kernel/notes': note.subarray(0, 17) })
  t.equal(thisKernel(broken).buildId, undefined)
})
