import { execFileSync } from 'node:child_process'
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import {
  BtfError,
  type CheckedRelocation,
  checkObject,
  encodeBtf,
  minimizeBtf,
  openObject,
  readBtf,
} from '../../bpf/index.ts'
import { coreObjects, littleKernels } from '../helpers/core.ts'

const kernel = readBtf(readFileSync(littleKernels().get('x86_64')!))
const check = (name: string) =>
  checkObject(openObject(readFileSync(coreObjects('el').get(name)!)), kernel)

/** The failing accesses, one line each: program, access, answer, guard. */
function findings(name: string): string[] {
  const line = (program: string, { access, outcome, guard }: CheckedRelocation) => {
    const branch = guard?.is === 'reached only if' ? ` line ${guard.onlyIf?.line}` : ''
    return [program, access, outcome.is, `${guard?.is ?? ''}${branch}`]
      .join(' | ')
      .replace(/ \| $/, '')
  }
  return check(name).programs.flatMap((program) =>
    program.relocations.filter((r) => r.outcome.is !== 'ok').map((r) => line(program.name, r)),
  )
}

const loads = (name: string) =>
  Object.fromEntries(check(name).programs.map((program) => [program.name, program.loads]))

t.test(
  'checkObject recognises every form of guard: if, else, early return, negation, conjunction',
  (t) => {
    t.same(findings('exists'), [
      'combined | sk_buff___never->never_a_member | absent',
      'combined | sk_buff___never->never_a_member | poisoned | guarded',
      'early | nowhere->at_all | absent',
      'early | nowhere->at_all | poisoned | guarded',
      'early | nowhere->nested.inside | poisoned | guarded',
      'either | task_struct___before_5_14->state | poisoned | guarded',
      'moved | request___before_5_17->rq_disk | absent',
      'moved | request___before_5_17->rq_disk | poisoned | guarded',
      'size_of_missing | nowhere->nested | poisoned | unguarded',
      'unguarded | nowhere->at_all | poisoned | unguarded',
    ])
    t.same(loads('exists'), {
      combined: 'yes',
      early: 'yes',
      either: 'yes',
      moved: 'yes',
      size_of_missing: 'no',
      unguarded: 'no',
    })
    t.equal(check('exists').loads, 'no', 'one failing program makes the object fail')
    t.end()
  },
)

t.test(
  'partial BTF gives no for what its enums lack only, and yes only where whole BTF does',
  (t) => {
    const partial = (name: string) =>
      checkObject(openObject(readFileSync(coreObjects('el').get(name)!)), kernel, { partial: true })
    const checked = partial('exists')
    t.same(Object.fromEntries(checked.programs.map((program) => [program.name, program.loads])), {
      combined: 'cannot_tell',
      early: 'cannot_tell',
      either: 'yes',
      moved: 'cannot_tell',
      size_of_missing: 'cannot_tell',
      unguarded: 'cannot_tell',
    })
    const reasons = checked.programs.flatMap((program) => program.reasons)
    t.ok(reasons.some(({ code }) => code === 'not_covered'))
    for (const [name] of coreObjects('el')) {
      const [whole, part] = [check(name), partial(name)]
      const all = [...part.reasons, ...part.programs.flatMap((program) => program.reasons)]
      const sure = all.filter(({ verdict }) => verdict === 'no').map(({ code }) => code)
      t.same(
        sure.filter((code) => !/^missing_(helper|map_type|program_type|attach_type)$/.test(code)),
        [],
        name,
      )
      if (part.verdict === 'yes') t.equal(whole.verdict, 'yes', name)
    }
    t.end()
  },
)

t.test('checkObject reports missing enumerators', (t) => {
  const poisoned = findings('enum').filter((line) => line.includes('poisoned'))
  t.same(poisoned, [
    'guarded | enum zone_stat_item: NR_KERNEL_STACK_B | poisoned | guarded',
    'guarded | enum no_such_enum: NO_SUCH_VALUE | poisoned | guarded',
    'unguarded | enum bpf_func_id: BPF_FUNC_no_such_helper | poisoned | unguarded',
  ])
  t.end()
})

t.test('checkObject judges a subprogram by the calls that are reached', (t) => {
  t.same(findings('subprogram'), [
    'member_of | cgroup->no_such_member | poisoned | guarded',
    'third | cgroup->no_such_member | absent',
  ])
  t.equal(check('subprogram').loads, 'yes')
  t.end()
})

t.test('a fatal relocation has a reason and keeps its object from loading', (t) => {
  const { loads, programs } = check('ambiguous')
  t.equal(loads, 'no')
  const fatal = programs.flatMap((p) => p.relocations).filter((r) => r.outcome.is === 'fatal')
  t.ok(fatal.length > 0)
  for (const { outcome } of fatal) {
    t.match(outcome, { why: /^ambiguous_/, message: /several types of the kernel match/ })
  }
  t.end()
})

t.test('findings name the line and text in the source', (t) => {
  const { programs } = check('exists')
  const [relocation] = programs.find((p) => p.name === 'unguarded')!.relocations
  t.match(relocation, {
    instruction: 2,
    kind: 'byte_off',
    source: { file: /exists\.bpf\.c$/, line: 105, text: 'out[0] = BPF_CORE_READ(object, at_all);' },
  })
  t.end()
})

t.test('findings print accesses as C expressions', (t) => {
  const accesses = (name: string) =>
    check(name).programs.flatMap((p) => p.relocations.map((r) => r.access))
  t.ok(accesses('type').includes('struct task_struct'))
  t.ok(accesses('array').some((access) => /^\w+->\w+\[\d+\]/.test(access)))
  t.ok(accesses('anonymous').every((access) => !access.includes('anonymous')))
  t.end()
})

t.test('checkObject rejects an object of the other byte order with a code', (t) => {
  const big = openObject(readFileSync(coreObjects('eb').get('task')!))
  t.throws(() => checkObject(big, kernel), { code: 'unsupported', message: /big-endian.*little/ })
  const s390x = readBtf(readFileSync(littleKernels().get('s390x')!))
  t.equal(checkObject(big, s390x).loads, 'yes')
  t.end()
})

/** An object with relocations that share long strings: their access, the name of their type, their source line. */
function longStrings(folder: string, length: number, count: number): Buffer {
  const [section, access, line] = ['kprobe/x', 'x'.repeat(length), `y${'z'.repeat(length)}`]
  const start = Buffer.from(`\0${section}\0${access}\0${line}\0`)
  const struct = { kind: 'STRUCT', id: 1, name: `s${access}`, size: 4, flag: false } as const
  const btf = encodeBtf([{ ...struct, members: [] }], { strings: start })
  const [sectionAt, accessAt, lineAt] = [1, section.length + 2, section.length + access.length + 3]
  const lines = [16, sectionAt, 1, 0, lineAt, lineAt, 1 << 10]
  const relocations = [16, sectionAt, count]
  // byte_off, and type_exists with an access that it cannot have
  for (let i = 0; i < count; i++) relocations.push(0, 1, accessAt, i % 2 === 0 ? 0 : 8)
  const sizes = [lines.length * 4, relocations.length * 4]
  const head = [0x1eb9f, 32, 0, 0, 0, sizes[0]!, sizes[0]!, sizes[1]!]
  const ext = Buffer.from(Uint32Array.from([...head, ...lines, ...relocations]).buffer)
  const [file, btfFile, extFile] = ['o', 'btf', 'ext'].map((name) => join(folder, name))
  copyFileSync(coreObjects('el').get('task')!, file!)
  writeFileSync(btfFile!, btf)
  writeFileSync(extFile!, ext)
  const code = [...openObject(readFileSync(file!)).code.keys()].find((name) => name !== '.text')!
  const updates = ['--rename-section', `${code}=${section}`]
  for (const [name, from] of [
    ['.BTF', btfFile],
    ['.BTF.ext', extFile],
  ]) {
    updates.push('--update-section', `${name}=${from}`)
  }
  execFileSync('llvm-objcopy', [...updates, file!])
  return readFileSync(file!)
}

t.test('checkObject bounds every text that it takes from an object', (t) => {
  const bytes = longStrings(t.testdir(), 100_000, 330)
  t.ok(bytes.length < 600_000, 'the object is small')
  const object = openObject(bytes)
  const checked = checkObject(object, kernel)
  const relocations = checked.programs.flatMap((program) => program.relocations)
  t.equal(relocations.length, 330)
  for (const { access, outcome, source } of relocations) {
    if (access.length > 300) t.fail(`an access of ${access.length} characters`)
    if (!access.endsWith('…')) t.fail('the access does not end with an ellipsis')
    if (outcome.is !== 'fatal' || outcome.message.length > 600) t.fail('a long message')
    if (!source || source.file.length > 300 || source.text.length > 300) t.fail('a long line')
  }
  t.ok(JSON.stringify(checked).length < 330 * 4000, 'the answer is bounded')
  try {
    minimizeBtf(kernel, [object])
    t.fail('the relocations are invalid')
  } catch (error) {
    t.ok(error instanceof BtfError && error.message.length < 650, 'so is the message')
  }
  t.end()
})
