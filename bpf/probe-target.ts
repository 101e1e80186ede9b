/*
 * The functions that kprobes and trampolines are attached to, looked up in the kernel's list. libbpf attaches a kprobe to exactly the
 * function that is named (`attach_kprobe`), and one of `kprobe.multi` to each that matches a pattern
 * (`attach_kprobe_multi`). That happens after the program is loaded; the targets of trampolines are looked up before.
 */

import type { FunctionList } from './function-list.ts'
import type { Reason } from './reason.ts'
import { MAX_MESSAGE, short } from './short.ts'

/** Clones of a function that a message names. */
const MAX_CLONES = 4

/** Why a kprobe is not attached, or misses calls. `inModule`: the BTF of a module has the function. */
export function probeReasons(functions: FunctionList, name: string, inModule: boolean): Reason[] {
  const marks = functions.find(name)
  const [named, clones] = [short(name), clonesIn(functions, name)]
  if (!marks && inModule) return []
  if (!marks) {
    const why = clones
      ? `the compiler made ${clones} of it`
      : 'the compiler inlined it, or it is missing, or in a module that is not known'
    const message = `${named} is not among the functions of this kernel: ${why}`
    return [reasonOf('missing_target', 'no', message)]
  }
  if (marks.has('refused')) {
    const message = `this kernel refuses kprobes in ${named}`
    return [reasonOf('refused_target', 'no', message)]
  }
  const notes = missedCalls(functions, name)
  if (!marks.has('several')) return notes
  const message = `several functions of this kernel have the name ${named}: it refuses a kprobe, or takes one of them`
  return [reasonOf('ambiguous_target', 'cannot_tell', message), ...notes]
}

/**
 * Why a program that is called by a trampoline, such as `fentry`, is not loaded, or misses calls. The kernel looks up the
 * address of a function that its BTF has (kernel/bpf/verifier.c `bpf_check_attach_target`), and BTF also has functions of
 * which only clones are left.
 */
export function trampolineReasons(
  functions: FunctionList,
  name: string,
  inModule: boolean,
): Reason[] {
  if (inModule || functions.find(name)) return missedCalls(functions, name)
  const clones = clonesIn(functions, name)
  const why = clones ? `the compiler made ${clones} of it` : 'the compiler inlined it'
  const message = `${short(name)} is in this kernel's BTF, but not among its functions: ${why}`
  return [reasonOf('missing_target', 'no', message, 'load')]
}

/** Why a program of `kprobe.multi` is not attached: nothing matches its pattern. */
export function patternReasons(functions: FunctionList, pattern: string): Reason[] {
  // MODULE:PATTERN is of a module
  if (pattern.includes(':') || functions.matches(pattern)) return []
  const message = `no function in the image of this kernel matches ${short(pattern)}: a module may have one`
  return [reasonOf('missing_target', 'cannot_tell', message)]
}

/** Notes of calls that nothing sees that is attached to a function. */
function missedCalls(functions: FunctionList, name: string): Reason[] {
  const clones = clonesIn(functions, name)
  const missed = [
    ...(functions.find(name)?.has('inlined') ? ['calls that the compiler inlined'] : []),
    ...(clones ? [`calls of ${clones}, which the compiler made of it`] : []),
  ]
  if (missed.length === 0) return []
  const message = `attaches to ${short(name)}, but misses ${missed.join(', and ')}`
  return [
    { code: 'missed_calls', verdict: 'yes', stage: 'run', message: short(message, MAX_MESSAGE) },
  ]
}

/** The clones of a function as a text; undefined if it has none. */
function clonesIn(functions: FunctionList, name: string): string | undefined {
  const clones = functions.clonesOf(name)
  if (clones.length === 0) return undefined
  const more = clones.length - MAX_CLONES
  const named = clones.slice(0, MAX_CLONES).map((clone) => short(clone))
  return [named.join(', '), ...(more > 0 ? [`${more} more`] : [])].join(' and ')
}

function reasonOf(
  code: Reason['code'],
  verdict: Reason['verdict'],
  message: string,
  stage: Reason['stage'] = 'attach',
): Reason {
  return { code, verdict, stage, message: short(message, MAX_MESSAGE) }
}
