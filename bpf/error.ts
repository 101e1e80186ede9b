/** What can be wrong with bytes that claim to be ELF, BTF, `.BTF.ext` or BPF; nothing else is thrown for bad input. */
export const BTF_ERROR_CODES = [
  'truncated', // the data ends before what a header or count in it promises
  'invalid_header', // a BTF header whose magic, version, lengths or offsets cannot be
  'invalid_strings', // a string section that does not begin with the empty string, or is not closed by NUL
  'invalid_type', // a type record that contradicts itself or what it refers to
  'invalid_kind', // a kind that neither we nor the file's own layout section know
  'invalid_name', // a name that lies outside the string section
  'invalid_type_id', // a reference to a type that is not there
  'cycle', // a type that contains itself, or a chain of references too long to be meant
  'too_large', // more than a stated limit
  'invalid_elf', // an ELF header, section table, symbol table or note that cannot be
  'missing_section', // an ELF file without the section that was asked for
  'invalid_relocation', // a CO-RE relocation for which libbpf would refuse the object, whatever the program does
  'unsupported', // well-formed, but nothing this library reads: a compressed section, an unknown version
] as const

export type BtfErrorCode = (typeof BTF_ERROR_CODES)[number]

/** The one error class of `bpf/`; `offset` is the byte of the input (or of the section named) that is at fault. */
export class BtfError extends Error {
  override readonly name = 'BtfError'
  readonly code: BtfErrorCode
  readonly offset: number | undefined

  constructor(code: BtfErrorCode, message: string, offset?: number) {
    super(offset === undefined ? message : `${message} (at byte ${offset})`)
    this.code = code
    this.offset = offset
  }
}
