/* The CO-RE fixtures of test/fixtures/core: objects in both byte orders, and small kernels to relocate them against. */
import { readdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

export const coreFolder = fileURLToPath(new URL('../fixtures/core/built/', import.meta.url))

/** The paths of the little-endian (`el`) or big-endian (`eb`) objects, by the name of their source. */
export function coreObjects(order: 'el' | 'eb'): Map<string, string> {
  return filesOf(new RegExp(`^(.*)\\.${order}\\.o$`))
}

/** The paths of the small kernels' raw BTF, by machine. s390x and ppc are big-endian; i686 and ppc have 32 bits. */
export function littleKernels(): Map<string, string> {
  return filesOf(/^kernel-(.*)\.btf$/)
}

function filesOf(pattern: RegExp): Map<string, string> {
  const named = readdirSync(coreFolder).flatMap((file) => {
    const name = file.match(pattern)?.[1]
    return name === undefined ? [] : [[name, coreFolder + file] as const]
  })
  return new Map(named.sort(([a], [b]) => (a < b ? -1 : 1)))
}
