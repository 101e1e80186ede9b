// The pool of threads: it returns the results of bpf/, and a task over a limit does not affect others.
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { zstdCompressSync } from 'node:zlib'
import t, { type Test } from 'tap'
import { checkObject, minimizeBtf, openObject, parseBtf } from '../../../bpf/index.ts'
import { jsonOf } from '../../../service/json.ts'
import { Pool, type PoolLimits } from '../../../service/threads/pool.ts'
import { sha256Of } from '../../../storage/index.ts'
import { coreObjects, littleKernels } from '../../helpers/core.ts'

const object = (name: string, order: 'el' | 'eb' = 'el') =>
  readFileSync(coreObjects(order).get(name)!)
const kernel = (machine: string) => readFileSync(littleKernels().get(machine)!)
const [task, ambiguous, bitfield] = [object('task'), object('ambiguous'), object('bitfield')]
const x86 = kernel('x86_64')

function poolOf(t: Test, limits: Partial<PoolLimits> = {}, worker?: string): Pool {
  const pool = new Pool({ threads: 1, ...limits }, worker)
  t.teardown(() => pool.close())
  return pool
}

const MISBEHAVING = fileURLToPath(new URL('../../helpers/misbehaving-worker.ts', import.meta.url))
const bytes = new Uint8Array([1, 2, 3])
const runWorking = (pool: Pool) => pool.run('minimize', { objects: [], btf: bytes })

t.test('a task in a thread returns the same result as a direct call', async (t) => {
  const pool = poolOf(t)
  const btf = parseBtf(x86)
  const [one, two] = [openObject(task), openObject(bitfield)]
  const objects = [task, bitfield]
  const minimized = await pool.run('minimize', { objects, btf: x86 })
  t.ok(Buffer.from(minimized).equals(minimizeBtf(btf, [one, two])))
  t.same(await pool.run('check', { objects, btf: x86 }), [
    jsonOf(checkObject(one, btf)),
    jsonOf(checkObject(two, btf)),
  ])
  t.match(await pool.run('open', { objects }), [
    { byteOrder: 'little', programs: one.programs.length },
    { relocations: two.ext.relocations.length },
  ])
})

t.test('an error has the code of bpf/ and tells which object is invalid', async (t) => {
  const pool = poolOf(t)
  const open = (...objects: Uint8Array[]) => pool.run('open', { objects })
  await t.rejects(open(task, x86), {
    name: 'BtfError',
    code: 'invalid_elf',
    message: /^object 2: not an ELF file/,
  })
  await t.rejects(open(task.subarray(0, 700)), { name: 'BtfError', message: /^object 1: / })
  const minimize = pool.run('minimize', { objects: [ambiguous], btf: x86 })
  await t.rejects(minimize, { name: 'BtfError', code: 'invalid_relocation' })
})

t.test(
  'fit minimizes the BTF and reports the objects that do not work on the kernel',
  async (t) => {
    const pool = poolOf(t)
    const fit = (objects: Uint8Array[], btf: Buffer, sha256 = sha256Of(btf)) =>
      pool.run('fit', { objects, btf: { frame: zstdCompressSync(btf), sha256, size: btf.length } })
    const good = await fit([task], x86)
    t.same(good.misfits, [])
    t.ok(Buffer.from(good.btf).equals(minimizeBtf(parseBtf(x86), [openObject(task)])))

    const refused = await fit([task, ambiguous], x86)
    t.match(refused.misfits, [{ object: 1, code: 'does_not_load', message: /ambiguous|several/ }])
    t.ok(
      Buffer.from(refused.btf).equals(x86),
      'the BTF is whole, so that the object is refused as on the kernel',
    )

    const foreign = await fit([task], kernel('s390x'))
    t.match(foreign.misfits, [{ object: 0, code: 'unsupported', message: /endian/ }])

    const wrong = { name: 'StoreError', code: 'digest_mismatch' }
    const blob = { frame: zstdCompressSync(x86), sha256: sha256Of(x86), size: x86.length }
    const changes = [{ sha256: '0'.repeat(64) }, { size: 9 }, { size: 1 << 20 }, { frame: x86 }]
    for (const changed of changes)
      await t.rejects(pool.run('fit', { objects: [task], btf: { ...blob, ...changed } }), wrong)
  },
)

t.test('a task over the time limit is terminated, and the next task has a thread', async (t) => {
  const pool = poolOf(t, { time: 5000 }, MISBEHAVING)
  const task = { objects: [Buffer.from(join(t.testdir(), 'log'))], btf: bytes }
  await t.rejects(pool.run('open', task), { code: 'too_complex', message: /5 s/ })
  t.same(await runWorking(pool), bytes)
  await t.rejects(pool.run('derive', { btf: bytes, modules: [] }), { message: 'a defect' })
  t.same(await runWorking(pool), bytes)
})

t.test('a task over the memory limit is terminated, and the next task has a thread', async (t) => {
  const pool = poolOf(t, { time: 60_000, memory: 64 }, MISBEHAVING)
  const task = { objects: [bytes], btf: bytes }
  await t.rejects(pool.run('check', task), { code: 'too_complex', message: /64 MB/ })
  t.same(await runWorking(pool), bytes)
})

/** A pool whose one thread is busy with a task that only `disconnect` ends. */
async function busyPool(t: Test, maxQueue: number) {
  const pool = poolOf(t, { maxQueue }, MISBEHAVING)
  const log = join(t.testdir(), 'log')
  const client = new AbortController()
  const task = { objects: [Buffer.from(log)], btf: bytes }
  const aborted = t.rejects(pool.run('open', task, client.signal), { message: 'disconnected' })
  while (!existsSync(log)) await sleep(5)
  return { pool, aborted, disconnect: () => client.abort(new Error('disconnected')) }
}

t.test(
  'a client that disconnects frees its thread at once, even from an endless task',
  async (t) => {
    const { pool, aborted, disconnect } = await busyPool(t, 1)
    const next = runWorking(pool)
    disconnect()
    await aborted
    t.same(await next, bytes)
  },
)

t.test('the queue is bounded, and a client that disconnects gives up its place', async (t) => {
  const { pool, aborted, disconnect } = await busyPool(t, 1)
  const client = new AbortController()
  const waits = pool.run('minimize', { objects: [], btf: bytes }, client.signal)
  await t.rejects(runWorking(pool), { code: 'busy' })
  client.abort(new Error('enough'))
  await t.rejects(waits, { message: 'enough' })
  const last = runWorking(pool)
  disconnect()
  await aborted
  t.same(await last, bytes)
  await t.rejects(pool.run('minimize', { objects: [], btf: bytes }, client.signal), {
    message: 'enough',
  })
})
