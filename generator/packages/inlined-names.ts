/*
 * A program: prints the names of the functions of a vmlinux of which some calls are inlined, one a line. It runs as a
 * process of its own, so that its time and memory are limited, whatever the DWARF says.
 */
import { GeneratorError } from '../error.ts'
import { readInlinedCallsOf } from './vmlinux.ts'

const [, , path = ''] = process.argv
try {
  process.stdout.write([...readInlinedCallsOf(path)].map((name) => `${name}\n`).join(''))
} catch (error) {
  if (!(error instanceof GeneratorError)) throw error
  console.error(error.message)
  process.exitCode = 1
}
