// Run by pack-store.ts in a process of its own: the bytes by which it grows while it reads one kernel out of a pack.
import { readFileSync } from 'node:fs'
import { DeltaChain } from '../../bpf/index.ts'
import { Pack, packFile } from '../../service/pack/pack.ts'

/** The most memory that the process had, in bytes. Not getrusage: its peak includes that of the process that started this one. */
function peak(): number {
  const [, kilobytes] = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8')) ?? []
  return Number(kilobytes) * 1024
}

const [path = '', sha256 = ''] = process.argv.slice(2)
const pack = await Pack.open(packFile(path))
new DeltaChain() // the code is loaded
const before = process.memoryUsage.rss()
await pack.read(sha256)
console.log(peak() - before)
