// Run by pack-store.ts in a process of its own: the bytes by which it grows while it reads one kernel out of a pack.
import { DeltaChain } from '../../bpf/index.ts'
import { Pack, packFile } from '../../service/pack/pack.ts'

const [path = '', sha256 = ''] = process.argv.slice(2)
const pack = await Pack.open(packFile(path))
new DeltaChain() // the code is loaded
const before = process.memoryUsage.rss()
await pack.read(sha256)
console.log(process.resourceUsage().maxRSS * 1024 - before)
