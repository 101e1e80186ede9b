/*
 * The functions that the compiler inlined somewhere, by name, from the DWARF of a vmlinux: each inlined call is a
 * DW_TAG_inlined_subroutine, whose abstract origin is the function (DWARF 5, section 3.3.8). A function of which some
 * calls are inlined while the symbol table still has it is a trap: a probe attaches, and misses these calls.
 *
 * All entries are read once, in file order, one unit at a time. Only names, origins and the ends of types count, so
 * every other attribute is skipped. Hostile DWARF costs time in proportion to its size, apart from abbreviations, which
 * each unit may have read anew: whoever reads DWARF of others limits time and memory.
 */

import { type ByteSource, decodeLatin1, viewOf } from './bytes.ts'
import { FORM, type FormSize, sizeOfForm } from './dwarf-form.ts'
import { type Elf, openElf } from './elf.ts'
import { BtfError } from './error.ts'
import { INLINE_SECTION, inlinedFunctions } from './inline-sites.ts'

/** Bytes of a unit, and of a section of names. With LTO one unit has a fifth of the kernel. */
const MAX_UNIT = 512 * 1024 ** 2
/** Bytes of a name. */
const MAX_NAME = 512

const TAG = { inlined: 0x1d, subprogram: 0x2e, compileUnit: 0x11, partialUnit: 0x3c } as const
const ATTRIBUTE = { sibling: 0x01, name: 0x03, origin: 0x31, strOffsetsBase: 0x72 } as const
/** Entries that contain no functions: structures, unions, enumerations, arrays, function types. */
const TYPES: ReadonlySet<number> = new Set([0x01, 0x04, 0x13, 0x15, 0x17])
const WANTED: ReadonlySet<number> = new Set(Object.values(ATTRIBUTE))
const HAS_NAMES: ReadonlySet<number> = new Set(Object.values(TAG))

/** An attribute, or a run of attributes of which only the total size counts. */
interface Step {
  /** 0 for attributes that do not count */
  readonly attribute: number
  readonly form: number
  readonly size: FormSize | 'indirect'
}

/** The form of one kind of entry. */
interface Abbreviation {
  readonly tag: number
  readonly steps: readonly Step[]
}

type Abbreviations = ReadonlyMap<number, Abbreviation>

interface Unit {
  readonly version: number
  readonly addressSize: number
  /** offset of the unit in `.debug_info` */
  readonly offset: number
  readonly end: number
  /** offset of the first entry, from the start of the unit */
  readonly start: number
  readonly abbreviations: number
}

/**
 * Returns the names of the functions of which at least one call is inlined, from `.BTF.inline` if there is no DWARF.
 * Errors: `missing_section` without both; those of `inlinedFunctions`; `unsupported` for compressed or 64-bit DWARF, or a form or version that is not known; `invalid_elf`; `too_large`.
 */
export function readInlinedCalls(source: ByteSource): Set<string> {
  const elf = openElf(source)
  if ((elf.section('.debug_info')?.size ?? 0) === 0 && elf.section(INLINE_SECTION))
    return inlinedFunctions(elf)
  return new DebugInfo(elf).names()
}

class DebugInfo {
  readonly #elf: Elf
  readonly #little: boolean
  readonly #abbrev: Uint8Array
  /** offsets in `.debug_info` of the functions of inlined calls */
  readonly #origins = new Set<number>()
  /** functions by their offset: where the name is, in `.debug_str`, or the name itself */
  readonly #functions = new Map<number, number | string>()
  /** of the unit that is read */
  #known:
    | { at: number; version: number; addressSize: number; abbreviations: Abbreviations }
    | undefined

  constructor(elf: Elf) {
    this.#elf = elf
    this.#little = elf.byteOrder === 'little'
    this.#abbrev = this.#section('.debug_abbrev')
  }

  names(): Set<string> {
    const info = this.#elf.section('.debug_info')
    if (!info) throw new BtfError('missing_section', 'the ELF file has no section .debug_info')
    const offsets = this.#elf.section('.debug_str_offsets') && this.#section('.debug_str_offsets')
    for (let at = 0; at < info.size; ) {
      const head = this.#elf.read(info, at, Math.min(32, info.size - at))
      const unit = this.#unit(head, at, info.size)
      if (unit.start > 0) {
        this.#readUnit(unit, this.#elf.read(info, at, unit.end - at), offsets)
      }
      at = unit.end
    }
    return this.#named()
  }

  /** Reads the header of a unit; `start` is 0 for a unit that has no functions. */
  #unit(head: Uint8Array, offset: number, size: number): Unit {
    const cursor = new Cursor(head, this.#little)
    const length = cursor.fixed(4)
    if (length >= 0xfffffff0) throw new BtfError('unsupported', '64-bit DWARF', offset)
    const end = offset + 4 + length
    if (end > size) throw new BtfError('truncated', 'a unit of .debug_info is cut off', offset)
    if (end - offset > MAX_UNIT) throw new BtfError('too_large', 'a unit of .debug_info', offset)
    const version = cursor.fixed(2)
    if (version < 2 || version > 5) throw new BtfError('unsupported', `DWARF ${version}`, offset)
    const type = version === 5 ? cursor.fixed(1) : 1
    const addressFirst = version === 5 ? cursor.fixed(1) : 0
    const abbreviations = cursor.fixed(4)
    const addressSize = version === 5 ? addressFirst : cursor.fixed(1)
    // DW_UT_compile and DW_UT_partial; type units have no functions
    const start = type === 1 || type === 3 ? cursor.at : 0
    return { version, addressSize, offset, end, start, abbreviations }
  }

  #readUnit(unit: Unit, bytes: Uint8Array, offsets: Uint8Array | undefined): void {
    const abbreviations = this.#abbreviationsOf(unit)
    const cursor = new Cursor(bytes, this.#little)
    cursor.at = unit.start
    let base = 8
    while (cursor.at < bytes.length) {
      const at = cursor.at
      const code = cursor.uleb()
      if (code === 0) continue
      const entry = abbreviations.get(code)
      if (!entry)
        throw new BtfError('invalid_elf', `unknown abbreviation ${code}`, unit.offset + at)
      const { tag } = entry
      let sibling = 0
      for (const { attribute, form: given, size: known } of entry.steps) {
        if (attribute === 0 && known !== 'indirect') {
          cursor.skip(known)
          continue
        }
        const form = known === 'indirect' ? cursor.uleb() : given
        const size = known === 'indirect' ? sizeOfForm(form, unit) : known
        if (size === undefined) throw unknownForm(form)
        const value = cursor.at
        cursor.skip(size)
        if (attribute === ATTRIBUTE.sibling) {
          sibling = referenceOf(cursor, form, value, unit) - unit.offset
        } else if (attribute === ATTRIBUTE.origin && tag === TAG.inlined) {
          this.#origins.add(referenceOf(cursor, form, value, unit))
        } else if (attribute === ATTRIBUTE.strOffsetsBase) base = cursor.fixedAt(value, 4)
        else if (attribute === ATTRIBUTE.name && tag === TAG.subprogram) {
          const name = nameAt(cursor, form, value, size, offsets, base)
          if (name !== undefined) this.#functions.set(unit.offset + at, name)
        }
      }
      if (TYPES.has(tag) && sibling > cursor.at) cursor.at = sibling
    }
  }

  #abbreviationsOf({ abbreviations: at, version, addressSize }: Unit): Abbreviations {
    const known = this.#known
    if (known?.at === at && known.version === version && known.addressSize === addressSize) {
      return known.abbreviations
    }
    const abbreviations = new Map<number, Abbreviation>()
    const cursor = new Cursor(this.#abbrev, this.#little)
    cursor.at = at
    for (let code = cursor.uleb(); code !== 0; code = cursor.uleb()) {
      const tag = cursor.uleb()
      cursor.skip(1) // whether it has children
      const steps: Step[] = []
      for (;;) {
        const [attribute, form] = [cursor.uleb(), cursor.uleb()]
        if (form === 0x21) cursor.skip('leb') // DW_FORM_implicit_const: its value is here
        if (attribute === 0 && form === 0) break
        addStep(steps, tag, attribute, form, { version, addressSize })
      }
      abbreviations.set(code, { tag, steps })
    }
    this.#known = { at, version, addressSize, abbreviations }
    return abbreviations
  }

  /** The names of the functions that are the origin of an inlined call. */
  #named(): Set<string> {
    const strings = this.#elf.section('.debug_str') ? this.#section('.debug_str') : new Uint8Array()
    const names = new Set<string>()
    const places = new Set<number>()
    for (const origin of this.#origins) {
      const found = this.#functions.get(origin)
      if (typeof found === 'string') names.add(found)
      else if (found !== undefined) places.add(found)
    }
    for (const at of places) {
      const end = strings.indexOf(0, at)
      if (end > at && end - at <= MAX_NAME) names.add(decodeLatin1(strings.subarray(at, end)))
    }
    return names
  }

  #section(name: string): Uint8Array {
    const section = this.#elf.section(name)
    if (section && section.size > MAX_UNIT) {
      throw new BtfError(
        'too_large',
        `${section.size} bytes of ${name}: expected at most ${MAX_UNIT}`,
      )
    }
    return this.#elf.read(section ?? name)
  }
}

/** Adds an attribute to the steps; attributes that do not count and have a fixed size become one step. */
function addStep(
  steps: Step[],
  tag: number,
  attribute: number,
  form: number,
  unit: Pick<Unit, 'version' | 'addressSize'>,
): void {
  const size = form === FORM.indirect ? 'indirect' : sizeOfForm(form, unit)
  if (size === undefined) throw unknownForm(form)
  const isWanted =
    WANTED.has(attribute) &&
    (HAS_NAMES.has(tag) || (attribute === ATTRIBUTE.sibling && TYPES.has(tag)))
  const last = steps.at(-1)
  if (
    isWanted ||
    !last ||
    last.attribute !== 0 ||
    typeof size !== 'number' ||
    typeof last.size !== 'number'
  ) {
    steps.push({ attribute: isWanted ? attribute : 0, form, size })
  } else steps[steps.length - 1] = { ...last, size: last.size + size }
}

/** The offset in `.debug_info` to which an attribute refers; -1 if it refers to another file. */
function referenceOf(cursor: Cursor, form: number, at: number, { offset }: Unit): number {
  switch (form) {
    case FORM.ref1:
      return offset + cursor.fixedAt(at, 1)
    case FORM.ref2:
      return offset + cursor.fixedAt(at, 2)
    case FORM.ref4:
      return offset + cursor.fixedAt(at, 4)
    case FORM.refUdata:
      return offset + cursor.ulebAt(at)
    case FORM.refAddr:
      return cursor.fixedAt(at, 4)
    default:
      return -1
  }
}

/** A name, or its offset in `.debug_str`; undefined if another file has it. */
function nameAt(
  cursor: Cursor,
  form: number,
  at: number,
  size: FormSize,
  offsets: Uint8Array | undefined,
  base: number,
): number | string | undefined {
  if (form === FORM.string) return cursor.textAt(at)
  if (form === FORM.strp) return cursor.fixedAt(at, 4)
  const isIndex = form === FORM.strx || (form >= FORM.strx1 && form <= FORM.strx4)
  if (!isIndex || !offsets) return undefined
  const index = typeof size === 'number' ? cursor.fixedAt(at, size) : cursor.ulebAt(at)
  const place = base + 4 * index
  if (place + 4 > offsets.length) return undefined
  return new Cursor(offsets, cursor.little).fixedAt(place, 4)
}

function unknownForm(form: number): BtfError {
  return new BtfError('unsupported', `unknown DWARF form 0x${form.toString(16)}`)
}

/** Reads numbers from bytes, one after another. Errors: `truncated`. */
class Cursor {
  at = 0
  readonly little: boolean
  readonly #bytes: Uint8Array
  readonly #view: DataView

  constructor(bytes: Uint8Array, little: boolean) {
    this.#bytes = bytes
    this.#view = viewOf(bytes)
    this.little = little
  }

  /** A number of 1 to 4 bytes. */
  fixed(size: number): number {
    const value = this.fixedAt(this.at, size)
    this.at += size
    return value
  }

  fixedAt(at: number, size: number): number {
    this.#need(at, size)
    if (size === 1) return this.#bytes[at]!
    if (size === 2) return this.#view.getUint16(at, this.little)
    if (size === 4) return this.#view.getUint32(at, this.little)
    const [a, b, c] = this.#bytes.subarray(at, at + 3) as unknown as [number, number, number]
    return this.little ? a | (b << 8) | (c << 16) : (a << 16) | (b << 8) | c
  }

  /** An unsigned LEB128 number; bits above 2^53 are lost. */
  uleb(): number {
    let value = 0
    let scale = 1
    for (;;) {
      const byte = this.#bytes[this.at]
      if (byte === undefined) throw cutOff(this.at)
      this.at++
      value += (byte & 0x7f) * scale
      if (byte < 0x80) return value
      scale *= 128
    }
  }

  ulebAt(at: number): number {
    const before = this.at
    this.at = at
    const value = this.uleb()
    this.at = before
    return value
  }

  skip(size: FormSize): void {
    switch (size) {
      case 'leb':
        this.uleb()
        return
      case 'string':
        this.#advance(this.#lengthOf(this.at) + 1)
        return
      case 'block':
        this.#advance(this.uleb())
        return
      case 'block1':
        this.#advance(this.fixed(1))
        return
      case 'block2':
        this.#advance(this.fixed(2))
        return
      case 'block4':
        this.#advance(this.fixed(4))
        return
      default:
        this.#advance(size)
    }
  }

  /** A string that ends with NUL; empty if it is too long. */
  textAt(at: number): string {
    const length = this.#lengthOf(at)
    return length > MAX_NAME ? '' : decodeLatin1(this.#bytes.subarray(at, at + length))
  }

  #lengthOf(at: number): number {
    const end = this.#bytes.indexOf(0, at)
    if (end < 0) throw cutOff(at)
    return end - at
  }

  #advance(size: number): void {
    this.#need(this.at, size)
    this.at += size
  }

  #need(at: number, size: number): void {
    if (at + size > this.#bytes.length) throw cutOff(at)
  }
}

function cutOff(at: number): BtfError {
  return new BtfError('truncated', 'a value of the DWARF is cut off', at)
}
