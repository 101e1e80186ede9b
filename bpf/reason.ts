/* The verdicts of `checkObject`, and its reasons. */

import type { SourceLine } from './source-line.ts'

/** `cannot_tell`: BTF does not decide it, or the verifier may know more than this library. */
export type Verdict = 'yes' | 'no' | 'cannot_tell'

/** Every reason for which an object does not work on a kernel. */
export const REASONS = [
  /** libbpf refuses the relocation, and with it the object */
  'invalid_relocation',
  /** the field, type or enumerator is missing, and the verifier reaches the access */
  'missing_type',
  /** partial BTF does not tell whether the kernel has the type, or which id it has there */
  'not_covered',
  /** the field has a size that the instruction cannot access */
  'size_mismatch',
  /** the kernel's field is smaller than what the program reads, as pointers on 32 bits are */
  'short_field',
  /** the function, hook, tracepoint or struct that the program is attached to is missing */
  'missing_target',
  /** several functions of the kernel have the name of the target: kernels since 6.6 refuse such a kprobe */
  'ambiguous_target',
  /** the kernel refuses kprobes in the function */
  'refused_target',
  /** the program is attached, and does not see the calls that the compiler inlined or gave to a clone: only a note */
  'missed_calls',
  /** the section names no type or no target, so the loader must set it */
  'unknown_target',
  /** the kernel has no BTF of its own, which the program needs to be loaded */
  'no_kernel_btf',
  'missing_kfunc',
  'missing_ksym',
  /** the kfunc or variable has another prototype or type */
  'incompatible_symbol',
  /** a value of the kernel's configuration, which BTF does not have */
  'unknown_config',
  'missing_helper',
  /** the verifier of the kernel does not know the instruction */
  'missing_instruction',
  'missing_map_type',
  'missing_program_type',
  'missing_attach_type',
  /** the struct of a struct_ops map is missing */
  'missing_struct_ops',
] as const
export type ReasonCode = (typeof REASONS)[number]

/** When it fails: as libbpf loads the object, as a program is attached, or by wrong values as it runs. */
export type CheckStage = 'load' | 'attach' | 'run'

export interface Reason {
  readonly code: ReasonCode
  /** `yes` for a note, which no verdict hangs on */
  readonly verdict: Verdict
  readonly stage: CheckStage
  /** a sentence without the place; at most 600 characters */
  readonly message: string
  /** index of the instruction in its program */
  readonly instruction?: number
  /** the access or query as C: `task_struct->se.vruntime` */
  readonly access?: string
  readonly source?: SourceLine
  /** the branch that decides whether the instruction is reached, where the verdict hangs on one */
  readonly onlyIf?: SourceLine
}
