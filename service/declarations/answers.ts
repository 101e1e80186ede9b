/*
 * What the index answers, as schemas for HTTP and as types. Offsets of members and sizes of bitfields are in bits, all
 * other sizes in bytes. Kernels are in the order of their series: by release, then by the version of the package.
 */
import Type, { type Static } from 'typebox'
import { DECLARATION_KINDS, type DeclarationKind } from '../../bpf/index.ts'
import { KernelName } from '../../storage/index.ts'

export const Kind = Type.Unsafe<DeclarationKind>(Type.Enum([...DECLARATION_KINDS]))

const count = (description: string) => Type.Integer({ minimum: 0, description })

/** A build of a kernel in the index. */
export const IndexedKernel = Type.Object({
  ...KernelName.properties,
  build: Type.Optional(Type.String({ description: 'build-id, where it is known' })),
  packageVersion: Type.String(),
  sha256: Type.String({ description: 'of its raw BTF' }),
})
export type IndexedKernel = Static<typeof IndexedKernel>

/** A series: the kernels of one distribution, version, architecture and flavour. */
export const SeriesName = Type.Object({
  distro: Type.String(),
  version: Type.String(),
  arch: Type.String(),
  flavour: Type.String({ description: 'suffix of the release, such as `-cloud-amd64`' }),
})
export type SeriesName = Static<typeof SeriesName>

export const FormId = Type.String({
  pattern: '^[0-9a-f]{16}$',
  description: 'the same in every index: a digest of the form',
})

const Member = Type.Object({
  name: Type.String({ description: 'name, or path through members of anonymous type' }),
  type: Type.String(),
  offset: Type.Integer({ description: 'bits' }),
  bitfieldSize: Type.Integer({ description: 'bits; 0 for other members' }),
  size: Type.Integer({ description: 'bytes' }),
})

const Enumerator = Type.Object({ name: Type.String(), value: Type.String() })

/** A declaration in one of its forms. */
export const DeclaredForm = Type.Object({
  kind: Kind,
  name: Type.String(),
  form: FormId,
  kernels: count('kernels that have this form'),
  size: Type.Optional(Type.Integer({ description: 'bytes' })),
  declaration: Type.Optional(
    Type.String({ description: 'as C: a prototype, or the target of a typedef' }),
  ),
  members: Type.Optional(Type.Array(Member)),
  values: Type.Optional(Type.Array(Enumerator)),
})
export type DeclaredForm = Static<typeof DeclaredForm>

/** The declarations of one name in one kernel. */
export const DeclaredIn = Type.Object({
  kernel: IndexedKernel,
  declarations: Type.Array(DeclaredForm),
})
export type DeclaredIn = Static<typeof DeclaredIn>

const Old = <T extends Type.TSchema>(schema: T) => Type.Object({ old: schema, new: schema })

/** What changed between two forms of a declaration. */
export const FormChanges = Type.Object({
  size: Type.Optional(Old(Type.Integer())),
  declaration: Type.Optional(Old(Type.String())),
  added: Type.Array(Type.String(), { description: 'members or enumerators' }),
  removed: Type.Array(Type.String()),
  renamed: Type.Array(Type.Object({ from: Type.String(), to: Type.String() })),
  retyped: Type.Array(
    Type.Object({ name: Type.String(), old: Type.String(), new: Type.String() }),
    { description: 'members with another type or size; enumerators with another value' },
  ),
  moved: count('members whose offset alone changed'),
  omitted: count('changes that are left out here'),
})
export type FormChanges = Static<typeof FormChanges>

/** A form without its members and values. */
export const FormSummary = Type.Object({
  ...Type.Omit(DeclaredForm, ['kind', 'name', 'members', 'values']).properties,
  members: Type.Optional(count('number of members')),
  values: Type.Optional(count('number of values')),
})
export type FormSummary = Static<typeof FormSummary>

const Ends = {
  first: IndexedKernel,
  last: IndexedKernel,
  kernels: count('kernels of the run'),
}

/** Neighbours of a series that have equal forms of a declaration. */
export const FormRun = Type.Object({
  ...Ends,
  forms: Type.Array(Type.Integer(), {
    description: 'indexes in `forms`; empty where the kernels do not have it',
  }),
  changes: Type.Optional(FormChanges),
})
export type FormRun = Static<typeof FormRun>

const seriesOf = <T extends Type.TSchema>(run: T) =>
  Type.Object({
    ...SeriesName.properties,
    kernels: count('kernels of the series'),
    runs: Type.Array(run),
  })

/** The forms of a declaration, and the runs of kernels that have them. */
export const DeclarationHistory = Type.Object({
  kind: Kind,
  name: Type.String(),
  forms: Type.Array(FormSummary),
  series: Type.Array(seriesOf(FormRun)),
})
export type DeclarationHistory = Static<typeof DeclarationHistory>

/** Where a member is, or which value an enumerator has. */
export const MemberVariant = Type.Object({
  ...Type.Partial(Type.Omit(Member, ['name'])).properties,
  value: Type.Optional(Type.String({ description: 'of an enumerator' })),
  kernels: count('kernels that have it so'),
})
export type MemberVariant = Static<typeof MemberVariant>

export const MEMBER_CHANGES = [
  'came',
  'went',
  'moved',
  'resized',
  'retyped',
  'renumbered',
  'renamed',
] as const
export const MEMBER_STATES = ['present', 'no_member', 'no_type'] as const

/** Neighbours of a series that have a member in equal places. */
export const MemberRun = Type.Object({
  ...Ends,
  state: Type.Unsafe<(typeof MEMBER_STATES)[number]>(Type.Enum([...MEMBER_STATES])),
  forms: Type.Array(Type.Integer(), { description: 'indexes in `forms`' }),
  changes: Type.Array(
    Type.Unsafe<(typeof MEMBER_CHANGES)[number]>(Type.Enum([...MEMBER_CHANGES])),
    { description: 'since the run before; empty for the first of a series' },
  ),
  renamedTo: Type.Optional(
    Type.String({ description: 'the member that took its place, where it went' }),
  ),
  renamedFrom: Type.Optional(
    Type.String({ description: 'the member whose place it took, where it came' }),
  ),
})
export type MemberRun = Static<typeof MemberRun>

/** A member or enumerator of a declaration over all kernels. */
export const MemberHistory = Type.Object({
  kind: Kind,
  name: Type.String({ description: 'of the declaration' }),
  member: Type.String(),
  forms: Type.Array(MemberVariant),
  series: Type.Array(seriesOf(MemberRun)),
})
export type MemberHistory = Static<typeof MemberHistory>

/** Kinds of things that a search finds. */
export const FOUND_KINDS = ['kernel', ...DECLARATION_KINDS, 'member', 'enumerator'] as const
export type FoundKind = (typeof FOUND_KINDS)[number]

export const Found = Type.Object({
  kind: Type.Unsafe<FoundKind>(Type.Enum([...FOUND_KINDS])),
  name: Type.String({ description: 'of a kernel its release; of a member its path' }),
  of: Type.Optional(
    Type.Object(
      { kind: Kind, name: Type.String() },
      { description: 'the declaration of a member or enumerator' },
    ),
  ),
  kernel: Type.Optional(IndexedKernel),
  kernels: Type.Optional(count('kernels that have the declaration')),
  forms: Type.Optional(count('forms of the declaration')),
})
export type Found = Static<typeof Found>

/** One page of an answer; `next` is the cursor of the page after it. */
export const SearchAnswer = Type.Object({
  found: Type.Array(Found),
  next: Type.Optional(Type.String()),
})
export type SearchAnswer = Static<typeof SearchAnswer>

export const FormHolders = Type.Object({
  declaration: DeclaredForm,
  kernels: Type.Array(IndexedKernel),
  next: Type.Optional(Type.String()),
})
export type FormHolders = Static<typeof FormHolders>

export const Neighbours = Type.Object({
  series: SeriesName,
  kernels: count('kernels of the series'),
  position: count('place in the series, from 0'),
  previous: Type.Optional(IndexedKernel),
  next: Type.Optional(IndexedKernel),
})
export type Neighbours = Static<typeof Neighbours>

/** A series with its first and last kernel. */
export const SeriesSummary = Type.Object({ ...SeriesName.properties, ...Ends })
export type SeriesSummary = Static<typeof SeriesSummary>

/** A declaration that differs between two kernels, as `btfmill diff --json` has it. */
export const DiffEntry = Type.Object({
  change: Type.Enum(['added', 'removed', 'changed']),
  kind: Kind,
  name: Type.String(),
  size: Type.Optional(Old(Type.Integer())),
  declaration: Type.Optional(Old(Type.String())),
  members: Type.Optional(
    Type.Object({
      added: Type.Array(Member),
      removed: Type.Array(Member),
      changed: Type.Array(
        Type.Object({
          name: Type.String(),
          type: Type.Optional(Old(Type.String())),
          offset: Type.Optional(Old(Type.Integer())),
          bitfieldSize: Type.Optional(Old(Type.Integer())),
          size: Type.Optional(Old(Type.Integer())),
        }),
      ),
    }),
  ),
  values: Type.Optional(
    Type.Object({
      added: Type.Array(Enumerator),
      removed: Type.Array(Enumerator),
      changed: Type.Array(Type.Object({ name: Type.String(), value: Old(Type.String()) })),
    }),
  ),
})
export type DiffEntry = Static<typeof DiffEntry>

const DiffCounts = Type.Object({
  kind: Kind,
  added: count('declarations'),
  removed: count('declarations'),
  changed: count('declarations'),
})

export const DiffAnswer = Type.Object({
  from: IndexedKernel,
  to: IndexedKernel,
  counts: Type.Array(DiffCounts, { description: 'of each kind with differences' }),
  entries: Type.Array(DiffEntry, { description: 'by kind, then by name' }),
  next: Type.Optional(Type.String()),
})
export type DiffAnswer = Static<typeof DiffAnswer>

export const IndexStats = Type.Object({
  kernels: count('kernels with BTF'),
  btfs: count('distinct BTFs'),
  series: count('series'),
  declarations: Type.Array(Type.Object({ kind: Kind, count: count('declarations') })),
  forms: count('distinct forms of all declarations'),
  bytes: count('size of the index'),
  updatedAt: Type.Optional(Type.String({ format: 'date-time' })),
  failed: Type.Array(Type.Object({ sha256: Type.String(), message: Type.String() }), {
    description: 'BTFs that could not be taken up',
  }),
})
export type IndexStats = Static<typeof IndexStats>
