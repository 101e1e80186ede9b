/*
 * The schemas of the lines in answers for many kernels. The service documents them, and a client that reads the answer of a
 * server checks each line against them.
 */
import Type from 'typebox'
import { REASONS, RELOCATION_KINDS } from '../../bpf/index.ts'

/** The schema of an error in a line. */
const LineError = Type.Object(
  { code: Type.String(), message: Type.String() },
  { description: 'why there is no result for this kernel' },
)

/** The schema of the last line of an answer that is not whole. */
export const CutLine = Type.Object(
  {
    error: Type.Object({ code: Type.Literal('too_large'), message: Type.String() }),
    missing: Type.Integer({ minimum: 1, description: 'results that are not in the answer' }),
  },
  { description: 'the last line of an answer that has reached its limit' },
)

const Verdict = Type.Enum(['yes', 'cannot_tell', 'no'])

const SourceLine = Type.Object({
  file: Type.String(),
  line: Type.Integer(),
  text: Type.String(),
})

const Value = Type.String({ pattern: '^[0-9]+$', description: '64 bits, as libbpf prints them' })
const Sizes = Type.Object({ old: Type.Integer(), new: Type.Integer() })

const Outcome = Type.Union(
  [
    Type.Object({
      is: Type.Literal('ok'),
      old: Value,
      new: Value,
      bytes: Type.Optional(Sizes),
      field: Type.Optional(Sizes),
    }),
    Type.Object({ is: Type.Literal('absent'), old: Value }),
    Type.Object({ is: Type.Literal('poisoned'), why: Type.Enum(['missing', 'access']) }),
    Type.Object({ is: Type.Literal('fatal'), why: Type.String(), message: Type.String() }),
  ],
  { description: 'how libbpf relocates the instruction' },
)

const Relocation = Type.Object({
  instruction: Type.Integer({ description: 'index in the program' }),
  kind: Type.Enum([...RELOCATION_KINDS, 'unknown']),
  access: Type.String({ description: 'the accessed field or queried type, as C' }),
  outcome: Outcome,
  source: Type.Optional(SourceLine),
  guard: Type.Optional(
    Type.Object(
      {
        is: Type.Enum(['guarded', 'unguarded', 'reached only if']),
        onlyIf: Type.Optional(SourceLine),
      },
      { description: 'whether the verifier can reach a poisoned instruction' },
    ),
  ),
})

const Reason = Type.Object(
  {
    code: Type.Enum([...REASONS]),
    verdict: Verdict,
    stage: Type.Enum(['load', 'attach', 'run']),
    message: Type.String(),
    instruction: Type.Optional(Type.Integer({ description: 'index in the program' })),
    access: Type.Optional(Type.String()),
    source: Type.Optional(SourceLine),
    onlyIf: Type.Optional(SourceLine),
  },
  {
    description:
      'why it fails or may fail, and when: as it is loaded, attached, or runs; a note has the verdict yes',
  },
)

const Program = Type.Object({
  name: Type.String(),
  section: Type.String(),
  loaded: Type.Boolean({ description: 'false: libbpf loads it only if it is asked to' }),
  verdict: Verdict,
  loads: Verdict,
  reasons: Type.Array(Reason),
  relocations: Type.Array(Relocation),
})

/** A line of `check --json`, and of an answer of /v1/check: one object on one kernel. */
export const CheckLine = Type.Object({
  object: Type.String({ description: 'file name' }),
  kernel: Type.String({ description: '`DISTRO/VERSION/ARCH/RELEASE`, or the digest' }),
  build: Type.Optional(
    Type.String({
      description: 'the package version, if the kernel has several builds with different BTF',
    }),
  ),
  partial: Type.Optional(
    Type.Literal(true, { description: 'the BTF is partial, made from kernel headers' }),
  ),
  verdict: Type.Optional(Verdict),
  loads: Type.Optional(Verdict),
  reasons: Type.Optional(Type.Array(Reason, { description: 'reasons outside of programs' })),
  programs: Type.Optional(Type.Array(Program)),
  error: Type.Optional(LineError),
})

/** A line of an answer of /v1/minimize: one kernel. */
export const MinimizeLine = Type.Object({
  kernel: Type.String({ description: '`DISTRO/VERSION/ARCH/RELEASE`' }),
  build: Type.Optional(
    Type.String({
      description: 'the package version, if the kernel has several builds with different BTF',
    }),
  ),
  sha256: Type.Optional(Type.String({ pattern: '^[0-9a-f]{64}$' })),
  size: Type.Optional(Type.Integer({ description: 'bytes' })),
  of: Type.Optional(Type.Integer({ description: "bytes of the kernel's whole BTF" })),
  btf: Type.Optional(Type.String({ contentEncoding: 'base64' })),
  warnings: Type.Optional(
    Type.Array(Type.String(), {
      description:
        'what the objects ask for and minimized BTF cannot give, such as the ids of the kernel',
    }),
  ),
  error: Type.Optional(LineError),
})
