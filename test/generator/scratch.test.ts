import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { removeAbandonedScratch, withScratch } from '../../generator/scratch.ts'

t.test(
  'a scratch directory is removed when its work has ended, whether it succeeded or failed',
  async (t) => {
    const parent = join(t.testdir(), 'made', 'here')
    let inside = ''
    const result = await withScratch(parent, async (directory) => {
      inside = directory
      writeFileSync(join(directory, 'vmlinux'), 'bytes')
      return 7
    })
    t.equal(result, 7)
    t.ok(inside.startsWith(`${parent}/btfmill-${process.pid}-`))
    const reason = new Error('failed')
    await t.rejects(
      withScratch(parent, async (directory) => {
        writeFileSync(join(directory, 'vmlinux'), 'bytes')
        throw reason
      }),
      reason,
    )
    t.same(readdirSync(parent), [])
  },
)

t.test('the scratch directory of a killed process is removed, and nothing else is', async (t) => {
  const parent = t.testdir({ kept: { file: 'bytes' } })
  const { pid: dead } = spawnSync('true')
  const abandoned = join(parent, `btfmill-${dead}-abcdef`)
  mkdirSync(join(abandoned, 'deep'), { recursive: true })
  symlinkSync(join(parent, 'kept'), join(abandoned, 'deep', 'link'))
  symlinkSync(join(parent, 'kept'), join(parent, `btfmill-${dead}-linked`))
  const others = [`btfmill-${process.pid}-abcdef`, 'btfmill-1-abcdef', 'btfmill-store', 'kept']
  for (const name of others) mkdirSync(join(parent, name), { recursive: true })
  await removeAbandonedScratch(parent)
  t.same(readdirSync(parent).sort(), others.sort())
  t.ok(existsSync(join(parent, 'kept', 'file')), 'links are not followed')
  await removeAbandonedScratch(join(parent, 'nowhere'))
})
