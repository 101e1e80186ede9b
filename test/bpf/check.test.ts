import { readFileSync } from 'node:fs'
import t from 'tap'
import { type CheckedRelocation, checkObject, openObject, readBtf } from '../../bpf/index.ts'
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
      'unguarded | nowhere->at_all | poisoned | reached only if line 104',
    ])
    t.same(loads('exists'), {
      combined: 'yes',
      early: 'yes',
      either: 'yes',
      moved: 'yes',
      size_of_missing: 'no',
      unguarded: 'depends',
    })
    t.equal(check('exists').loads, 'no', 'one failing program makes the object fail')
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
    source: { file: /exists\.bpf\.c$/, line: 104, text: 'if (ctx[1])' },
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
