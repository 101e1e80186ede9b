/*
 * Every entry point of bpf/ that takes bytes, alone or together with a valid input. For any bytes, it gives a value, or
 * a BtfError with a code of the list. An entry point that reads bytes gives an offset too. BTF that it writes can be
 * read.
 */
import { readFileSync } from 'node:fs'
import {
  applyDelta,
  type BpfObject,
  BTF_ERROR_CODES,
  type Btf,
  BtfError,
  type BtfErrorCode,
  buildIdOf,
  checkObject,
  compareLayouts,
  DeclaredForms,
  DeltaChain,
  DIALECTS,
  type Dialect,
  describeImage,
  describeVmlinux,
  diffBtf,
  encodeBtf,
  encodeDelta,
  layoutOf,
  memorySource,
  mergeBtf,
  minimizeBtf,
  openElf,
  openObject,
  parseBtf,
  parseNotes,
  printDiff,
  printHeader,
  printLayout,
  readBtf,
  relocate,
  relocateBase,
  resolve,
  sizeOf,
  toDialect,
} from '../../bpf/index.ts'
import { NameQuery } from '../../bpf/name-query.ts'
import type { FailureCode } from '../../storage/index.ts'
import { coreObjects, littleKernels } from '../helpers/core.ts'
import { distilledCases } from '../helpers/distilled.ts'
import { fixture } from '../helpers/fixtures.ts'
import { base, type InputSort, parentOf, parents } from './corpus.ts'
import type { Random } from './random.ts'

/** The outcome of an entry point: a value, or the code of a BtfError, a GeneratorError or a StoreError. */
export type Outcome = 'value' | BtfErrorCode | FailureCode | 'invalid_pack'

export interface Visit {
  readonly door: string
  readonly outcome: Outcome
}

/** A violation of the rules above, which no input may cause. */
export class Defect extends Error {
  override readonly name = 'Defect'

  constructor(door: string, cause: unknown) {
    super(`${door}: ${text(cause)}`, { cause })
  }
}

function text(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  return `${error.stack}${error.cause ? `\ncaused by ${text(error.cause)}` : ''}`
}

/** The largest number of sections per file that are read. */
const MAX_SECTIONS = 32

/** Codes without an offset: they are about something missing, or about a relation of types. */
const WITHOUT_OFFSET: ReadonlySet<BtfErrorCode> = new Set(['missing_section', 'cycle', 'too_large'])

const codes: ReadonlySet<string> = new Set(BTF_ERROR_CODES)

/** Calls entry points and records the outcomes. Errors of its methods: `Defect`. */
class Account {
  readonly visits: Visit[] = []

  /** Calls an entry point. Returns its value, or undefined for a BtfError; with `reads`, that must have an offset. */
  through<T>(door: string, pass: () => T, reads = false): T | undefined {
    try {
      const value = pass()
      this.visits.push({ door, outcome: 'value' })
      return value
    } catch (error) {
      if (!(error instanceof BtfError)) throw new Defect(door, error)
      const { code, offset } = error
      if (!codes.has(code)) throw new Defect(door, error)
      const place = offset === undefined ? !reads || WITHOUT_OFFSET.has(code) : isOffset(offset)
      if (!place) throw new Defect(door, new Error(`offset ${offset}`, { cause: error }))
      this.visits.push({ door, outcome: code })
      return undefined
    }
  }

  /** Calls an entry point that reads bytes. */
  read<T>(door: string, pass: () => T): T | undefined {
    return this.through(door, pass, true)
  }

  /** Calls an entry point that writes BTF, and reads the BTF again. */
  write(door: string, pass: () => Uint8Array): void {
    const bytes = this.through(door, pass)
    if (!bytes) return
    try {
      parseBtf(bytes)
    } catch (error) {
      throw new Defect(`${door}, read again`, error)
    }
  }
}

function isOffset(offset: number): boolean {
  return Number.isSafeInteger(offset) && offset >= 0
}

/** Runs bytes through the readers for inputs of this sort, and through one of the users of what they give. Errors: `Defect`. */
export function visitInput(
  name: string,
  sort: InputSort,
  bytes: Uint8Array,
  random: Random,
): Visit[] {
  const visitor = new Visitor(random)
  switch (sort) {
    case 'btf':
      visitor.btf(bytes)
      break
    case 'split btf':
      visitor.split(bytes)
      break
    case 'vmlinux':
      visitor.vmlinux(bytes)
      break
    case 'object':
      visitor.object(bytes)
      break
    case 'delta':
      visitor.delta(bytes, parentOf(name))
  }
  return visitor.visits
}

/** Valid objects and kernels of both byte orders. */
const objects = (['el', 'eb'] as const).flatMap((order) =>
  [...coreObjects(order).values()].map((path) => openObject(readFileSync(path))),
)
const kernels = [...littleKernels().values()].map((path) => parseBtf(readFileSync(path)))
const module = fixture('module-x86_64.btf')

class Visitor extends Account {
  readonly #random: Random

  constructor(random: Random) {
    super()
    this.#random = random
  }

  /** Applies a delta to nothing, or to its parent and sometimes another, and one more delta to what comes out. */
  delta(bytes: Uint8Array, own: Buffer | undefined): void {
    if (!own) this.through('applyDelta, root', () => applyDelta(bytes))
    const parent = own && !this.#random.once(8) ? own : this.#random.pick(parents)
    this.through('DeltaChain', () => {
      const chain = new DeltaChain(parent)
      chain.apply(bytes)
      const result = chain.bytes()
      chain.apply(encodeDelta(parent, result))
      if (!parent.equals(chain.bytes())) throw new Error('the chain lost its way')
      return result
    })
  }

  #deltas(bytes: Uint8Array): void {
    this.through('encodeDelta', () => {
      const parent = this.#random.pick(parents)
      const delta = encodeDelta(bytes, parent)
      if (Buffer.compare(applyDelta(delta, parent, { maxSize: bytes.length }), bytes) !== 0)
        throw new Error('the delta does not give the child')
      if (!parent.equals(applyDelta(encodeDelta(parent, bytes), bytes)))
        throw new Error('the delta from this does not give the child')
    })
  }

  btf(bytes: Uint8Array): void {
    this.read('parseBtf over a base', () => parseBtf(bytes, { base }))
    this.through('describeImage', () => describeImage(Buffer.concat([Buffer.alloc(99), bytes])))
    const btf = this.read('readBtf', () => readBtf(bytes))
    if (!btf) return
    const { byteOrder, strings } = btf
    this.#one(
      () => this.#walk(btf),
      () => this.write('encodeBtf', () => encodeBtf(btf.types(), { byteOrder })),
      () =>
        this.write('encodeBtf with strings', () => encodeBtf(btf.types(), { byteOrder, strings })),
      () => {
        const dialect = this.#random.pick(Object.keys(DIALECTS) as Dialect[])
        this.write('toDialect', () => toDialect(btf, dialect))
      },
      () => {
        const split = this.read('parseBtf over this', () => parseBtf(module, { base: btf }))
        if (split) this.write('mergeBtf, base', () => mergeBtf(btf, [split]))
      },
      () => this.#deltas(bytes),
      () => this.#relocateBase(btf),
      () => this.#compare(btf),
      () => {
        const pair = [this.#pick(objects, btf), this.#pick(objects, btf)]
        this.write('minimizeBtf, kernel', () => minimizeBtf(btf, pair))
      },
      () => this.through('checkObject, kernel', () => checkObject(this.#pick(objects, btf), btf)),
    )
  }

  #relocateBase(btf: Btf): void {
    const distilled = this.#random.pick(distilledCases)
    const over = parseBtf(distilled.split, { base: parseBtf(distilled.base) })
    this.through('relocateBase, kernel', () => relocateBase(over, btf))
    const onThis = this.read('parseBtf over this', () => parseBtf(distilled.split, { base: btf }))
    if (onThis) this.through('relocateBase, base', () => relocateBase(onThis, kernels[0]!))
  }

  split(bytes: Uint8Array): void {
    const btf = this.read('parseBtf over a base', () => parseBtf(bytes, { base }))
    if (!btf) {
      if (this.#random.once(4)) this.#deltas(bytes)
      return
    }
    this.#one(
      () => this.#deltas(bytes),
      () => this.#walk(btf),
      () => this.#compare(btf),
      () => this.write('mergeBtf', () => mergeBtf(base, [btf])),
      () =>
        this.through('encodeBtf over a base', () =>
          parseBtf(encodeBtf(btf.types(), { base, byteOrder: btf.byteOrder }), { base }),
        ),
    )
  }

  vmlinux(bytes: Uint8Array): void {
    this.read('describeVmlinux', () => describeVmlinux(memorySource(bytes)))
    this.#elf(bytes)
  }

  object(bytes: Uint8Array): void {
    const object = this.read('openObject', () => openObject(bytes))
    if (!object) {
      if (this.#random.once(4)) this.#elf(bytes)
      return
    }
    const kernel = this.#pick(kernels, object)
    this.#one(
      () => this.through('relocate', () => relocate(object, kernel)),
      () => this.through('checkObject', () => checkObject(object, kernel)),
      () =>
        this.write('minimizeBtf', () => minimizeBtf(kernel, [object, this.#pick(objects, object)])),
    )
  }

  #elf(bytes: Uint8Array): void {
    const elf = this.read('openElf', () => openElf(memorySource(bytes)))
    if (!elf) return
    this.read('Elf.symbols', () => [...elf.symbols()].length)
    this.read('Elf.symbol', () => elf.symbol('linux_banner'))
    for (const section of elf.sections.slice(0, MAX_SECTIONS)) {
      this.read('Elf.read', () => elf.read(section))
      this.read('Elf.relocations', () => [...elf.relocations(section)].length)
      this.read('Elf.search', () => [...elf.search(section, Buffer.from('Linux'))].length)
    }
    const notes = elf.section('.notes') ?? elf.sections[this.#random.below(elf.sections.length)]
    const held = notes && this.read('Elf.read', () => elf.read(notes))
    if (held) {
      this.read('parseNotes', () => [...parseNotes(held, elf.byteOrder)].length)
      this.read('buildIdOf', () => buildIdOf(held, elf.byteOrder))
    }
    const btf = this.read('readBtf', () => readBtf(bytes))
    if (btf) this.#walk(btf)
  }

  #walk(btf: Btf): void {
    this.through('Btf', () => {
      for (const type of btf.types()) btf.kind(type.id)
      btf.find('everything', this.#random.pick(['STRUCT', 'ENUM64', 'FUNC'] as const))
      const query = new NameQuery()
      query.addKind(this.#random.below(128))
      query.heads.fill(1)
      btf.idsOf(query)
      return btf.kinds().length + btf.pointerSize
    })
    this.through('printHeader', () => {
      let length = 0
      for (const piece of printHeader(btf)) length += piece.length
      return length
    })
    this.through('DeclaredForms', () => {
      const declared = new DeclaredForms(btf)
      for (let i = 0; i < declared.length; i++) declared.form(i)
      return declared.length
    })
    for (let n = 0; n < 4; n++) {
      const id = this.#random.below(btf.endId)
      this.through('printLayout', () => printLayout(btf, id))
      this.through('sizeOf', () => sizeOf(btf, id))
      this.through('resolve', () => resolve(btf, id))
      const type = btf.type(id)
      if ('members' in type) this.through('layoutOf', () => layoutOf(btf, type))
    }
  }

  #compare(btf: Btf): void {
    const other = this.#pick(kernels, btf)
    const diff = this.through('diffBtf', () => diffBtf(btf, other))
    if (diff) this.through('printDiff', () => [...printDiff(diff)].length)
    this.through('diffBtf of one name', () => diffBtf(other, btf, { type: 'task_struct' }))
    this.through('compareLayouts', () => compareLayouts(other, btf))
  }

  /** Calls one of the functions. A new mutation finds more than another call for the same one. */
  #one(...functions: readonly (() => void)[]): void {
    this.#random.pick(functions)()
  }

  #pick<T extends Btf | BpfObject>(all: readonly T[], { byteOrder }: Btf | BpfObject): T {
    return this.#random.pick(all.filter((one) => one.byteOrder === byteOrder))
  }
}
