import { MAX_MESSAGE, short } from './short.ts'

/** The defects of bytes that claim to be ELF, BTF, `.BTF.ext` or BPF. Bad input causes no other errors. */
export const BTF_ERROR_CODES = [
  'truncated', // the data ends before a header or count in it says
  'invalid_header', // a BTF header with an impossible magic, version, length or offset
  'invalid_strings', // a string section that does not begin with the empty string or end with NUL
  'invalid_type', // a type record that contradicts itself or a type it refers to
  'invalid_kind', // a kind that neither this library nor the file's layout section knows
  'invalid_name', // a name outside the string section
  'invalid_type_id', // a reference to a type that does not exist
  'cycle', // a type that contains itself, or too long a chain of references
  'too_large', // a limit of this library is exceeded
  'invalid_elf', // an impossible ELF header, section table, symbol table or note
  'missing_section', // an ELF file without the requested section
  'base_mismatch', // a module's distilled base has types that the kernel's BTF does not have
  'invalid_relocation', // a CO-RE relocation for which libbpf refuses the whole object
  'invalid_delta', // a delta that is damaged, of an unknown version, or made for another parent
  'not_kernel', // valid BTF that is not that of a whole kernel, or of another architecture
  'ambiguous_types', // a kernel's BTF with several layouts of a struct that most programs read
  'unsupported', // well-formed input that this library does not read: a compressed section, an unknown version
] as const

export type BtfErrorCode = (typeof BTF_ERROR_CODES)[number]

/** The only error class of `bpf/`. `offset` is the byte at fault, in the input or in the section that the message names. */
export class BtfError extends Error {
  override readonly name = 'BtfError'
  readonly code: BtfErrorCode
  readonly offset: number | undefined

  constructor(code: BtfErrorCode, message: string, offset?: number) {
    const said = short(message, MAX_MESSAGE)
    super(offset === undefined ? said : `${said} (at byte ${offset})`)
    this.code = code
    this.offset = offset
  }
}
