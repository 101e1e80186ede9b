// Objects that the page keeps: found by their digest after a restart, and bounded.
import { readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { KeptObjects } from '../../../service/objects/kept-objects.ts'
import { sha256Of } from '../../../storage/index.ts'
import { until } from '../../helpers/wait-until.ts'

const fail = (error: unknown) => t.fail(String(error))
const object = (text: string) => ({ name: `${text}.o`, bytes: Buffer.from(text) })

t.test('an object is found by its digest, also by the next process', async (t) => {
  const directory = join(t.testdir({}), 'objects')
  const kept = new KeptObjects(directory, fail)
  const digest = await kept.put(object('one'))
  t.equal(digest, sha256Of(Buffer.from('one')))
  t.same(await kept.get(digest), object('one'))
  t.same(await new KeptObjects(directory).get(digest), object('one'))
  t.equal(await kept.get('0'.repeat(64)), undefined)
  t.equal(await kept.get('../../etc/passwd'), undefined)
})

t.test('an object that is kept keeps its name', async (t) => {
  const kept = new KeptObjects(undefined)
  const digest = await kept.put(object('one'))
  await kept.put({ ...object('one'), name: 'other.o' })
  t.equal((await kept.get(digest))?.name, 'one.o')
})

t.test('a file that was changed is not served', async (t) => {
  const directory = join(t.testdir({}), 'objects')
  const digest = await new KeptObjects(directory).put(object('one'))
  writeFileSync(join(directory, digest), '"one.o"\nother')
  t.equal(await new KeptObjects(directory).get(digest), undefined)
})

t.test('the objects that were not used for longest make room', async (t) => {
  const directory = join(t.testdir({}), 'objects')
  const big = (fill: number) => ({ name: 'big.o', bytes: Buffer.alloc(8 * 1024 * 1024, fill) })
  const kept = new KeptObjects(directory, fail)
  const first = await kept.put(big(0))
  const second = await kept.put(big(1))
  for (let fill = 2; fill < 31; fill++) await kept.put(big(fill))
  t.ok(await kept.get(first), 'used again')
  await kept.put(big(31))
  await kept.put(big(32))
  const count = async () => readdirSync(directory).length
  t.ok((await until(count, (files) => files <= 32)) > 16)
  t.ok(await new KeptObjects(directory).get(first))
  t.equal(await new KeptObjects(directory).get(second), undefined)

  const next = new KeptObjects(directory, fail)
  for (let fill = 33; fill < 36; fill++) await next.put(big(fill))
  t.ok((await until(count, (files) => files <= 32)) > 16, 'the next process knows the files')
  t.ok(await new KeptObjects(directory).get(first), 'and when they were used')
})
