/* Sizes on the command line: bytes, or with K, M, G or T, which are powers of 1024. */
import { InvalidArgumentError } from 'commander'

const UNITS = ['', 'K', 'M', 'G', 'T']

/** Bytes. Errors: commander's, for what is no size. */
export function parseSize(text: string): number {
  const [, digits, unit = ''] = /^([1-9]\d{0,14})([KMGT]?)$/i.exec(text) ?? []
  const bytes = Number(digits) * 1024 ** UNITS.indexOf(unit.toUpperCase())
  if (Number.isSafeInteger(bytes)) return bytes
  throw new InvalidArgumentError('a size: 3000000000, 900M or 3G')
}

/** A directory and how many bytes of it may be used. */
export interface Scratch {
  directory?: string
  size?: number
}

/** `DIR`, `DIR:SIZE` or `:SIZE`. */
export function parseScratch(text: string): Scratch {
  const [, directory = '', size] = /^(.*?)(?::([1-9]\d*[KMGT]?))?$/is.exec(text) ?? []
  return {
    ...(directory !== '' && { directory }),
    ...(size !== undefined && { size: parseSize(size) }),
  }
}

/** What jobs may take of the machine, as the generator has it. */
export function roomOf(memory: number | undefined, { directory, size }: Scratch) {
  return {
    ...(directory !== undefined && { scratch: directory }),
    budget: { ...(memory !== undefined && { memory }), ...(size !== undefined && { disk: size }) },
  }
}
