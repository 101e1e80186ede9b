// The functions that kprobes and fentry are attached to, told apart by a kernel's list of functions.
import { readFileSync } from 'node:fs'
import t from 'tap'
import {
  asksForFunctions,
  type Btf,
  checkObject,
  encodeBtf,
  FunctionList,
  openObject,
  parseBtf,
  readBtf,
} from '../../bpf/index.ts'
import { coreObjects, littleKernels, wholeKernel } from '../helpers/core.ts'
import { probeObject } from '../helpers/probe-object.ts'

const SECTIONS = {
  there: 'kprobe/vfs_read',
  returns: 'kretprobe/vfs_read',
  inside: 'kprobe/vfs_read+0x10',
  inlined: 'kprobe/sometimes',
  renamed: 'kprobe/account_start',
  cloned: 'kprobe/half',
  missing: 'kprobe/no_such_function',
  in_btf_only: 'kprobe/optimized',
  in_module: 'kprobe/nfs_read',
  twice: 'kprobe/twice',
  refused: 'kprobe/exc_page_fault',
  pattern: 'kprobe.multi/vfs_*',
  no_pattern: 'kprobe.multi/nosuch_*',
  fentry: 'fentry/sometimes',
  exit: 'fexit/half',
  no_target: 'kprobe',
}

const object = openObject(probeObject(SECTIONS))

const small = readBtf(readFileSync(littleKernels().get('x86_64')!))
const kernel = wholeKernel(small, ['vfs_read', 'sometimes', 'half', 'optimized', 'twice'])

/** A module with one function. */
const moduleOf = (base: Btf, name: string): Btf => {
  const type = base.find('vfs_read', 'FUNC')!
  const proto = base.sizeOrType(type)
  const one = { kind: 'FUNC', id: base.endId, name, type: proto, linkage: 'static' } as const
  return parseBtf(encodeBtf([one], { base }), { base })
}

const functions = FunctionList.decode(
  Buffer.from(
    [
      'account_start.isra.0',
      'exc_page_fault refused',
      'half',
      'half.cold',
      'half.part.0',
      'optimized.constprop.0',
      'sometimes inlined',
      'twice several',
      'vfs_read',
      '',
    ].join('\n'),
  ),
)

const found = (options: Parameters<typeof checkObject>[2]) =>
  Object.fromEntries(
    checkObject(object, kernel, options).programs.map(({ name, verdict, reasons }) => {
      // the small kernel has no attach type of kprobe.multi
      const own = reasons.filter(({ code }) => code !== 'missing_attach_type')
      const noted = own.map(({ code, verdict }) => `${code} ${verdict}`).join()
      return [name, own.length < reasons.length ? noted : `${verdict}: ${noted}`]
    }),
  )

t.test('with the functions of a kernel, each kprobe is told apart as the kernel does', (t) => {
  const modules = [moduleOf(kernel, 'nfs_read')]
  t.same(found({ functions, modules }), {
    there: 'yes: ',
    returns: 'yes: ',
    inside: 'yes: ',
    inlined: 'yes: missed_calls yes',
    renamed: 'no: missing_target no',
    cloned: 'yes: missed_calls yes',
    missing: 'no: missing_target no',
    in_btf_only: 'no: missing_target no',
    in_module: 'yes: ',
    twice: 'cannot_tell: ambiguous_target cannot_tell',
    refused: 'no: refused_target no',
    pattern: '',
    no_pattern: 'missing_target cannot_tell',
    fentry: 'yes: missed_calls yes',
    exit: 'yes: missed_calls yes',
    no_target: 'yes: ',
  })
  t.end()
})

t.test('a kprobe that is not attached does not keep the object from loading', (t) => {
  const { loads, programs } = checkObject(object, kernel, { functions })
  t.same([loads, programs.find(({ name }) => name === 'missing')!.loads], ['yes', 'yes'])
  const messages = Object.fromEntries(
    programs.map(({ name, reasons }) => [name, reasons[0]?.message]),
  )
  t.match(
    messages.renamed,
    /account_start is not among .*: the compiler made account_start\.isra\.0 of it/,
  )
  t.match(
    messages.missing,
    /no_such_function is not among .*: the compiler inlined it, or it is missing/,
  )
  t.equal(messages.inlined, 'attaches to sometimes, but misses calls that the compiler inlined')
  t.equal(
    messages.cloned,
    'attaches to half, but misses calls of half.part.0, which the compiler made of it',
  )
  t.end()
})

t.test('a trampoline needs the function itself: clones of it do not do', (t) => {
  const traced = openObject(probeObject({ traced: 'fentry/optimized' }))
  const { verdict, loads, programs } = checkObject(traced, kernel, { functions })
  t.same([verdict, loads], ['no', 'no'])
  t.match(programs[0]!.reasons, [
    {
      code: 'missing_target',
      stage: 'load',
      message:
        "optimized is in this kernel's BTF, but not among its functions: the compiler made optimized.constprop.0 of it",
    },
  ])
  t.equal(checkObject(traced, kernel).verdict, 'yes', 'BTF alone does not tell')
  t.end()
})

t.test('without them, BTF says yes or nothing', (t) => {
  const codes = found({})
  t.equal(codes.there, 'yes: ')
  t.equal(codes.missing, 'cannot_tell: missing_target cannot_tell')
  t.equal(codes.in_btf_only, 'yes: ')
  t.equal(codes.no_pattern, '')
  t.equal(codes.inlined, 'yes: ')
  t.end()
})

t.test('only objects that are attached to functions ask for the list', (t) => {
  t.ok(asksForFunctions(object))
  t.notOk(asksForFunctions(openObject(readFileSync(coreObjects('el').get('plain')!))))
  t.end()
})
