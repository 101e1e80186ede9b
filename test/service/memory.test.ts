// The defaults that follow the memory: they fit into it, and a large machine has those of a large machine.
import t from 'tap'
import { settings } from '../../service/config.ts'
import { archivesAtOnce, defaultsFor, indexFits, mostMemory } from '../../service/memory.ts'

const MIB = 1024 ** 2

t.test('all that the defaults may use together fits into any memory from 768 MB up', async (t) => {
  for (const megabytes of [768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 16_384, 65_536])
    for (const processors of [1, 2, 4, 8, 64]) {
      const memory = megabytes * MIB
      const most = mostMemory(
        defaultsFor(memory, processors),
        archivesAtOnce(memory),
        indexFits(memory),
      )
      t.ok(most <= memory, `${megabytes} MB, ${processors}: ${Math.round(most / MIB)} MB`)
    }
})

t.test('a large machine has large defaults, and a small one still works', async (t) => {
  t.match(defaultsFor(32 * 1024 * MIB, 8), {
    threads: 8,
    taskMemory: 256 * MIB,
    bodyCache: 256 * MIB,
    uploadMemory: 512 * MIB,
    bulkRequests: 16,
    bundles: 4,
    bundleWindow: 64 * MIB,
  })
  t.match(defaultsFor(1024 * MIB, 8), { threads: 1, bundles: 1, bundleWindow: 8 * MIB })
  for (const value of Object.values(defaultsFor(64 * MIB, 8))) t.ok(value >= 1)
})

t.test(
  'the help shows the defaults of this machine, and that they follow its memory',
  async (t) => {
    for (const [name, value] of Object.entries(defaultsFor())) {
      const setting = settings.find((each) => each.name === name)
      t.equal(setting?.default, value, name)
      t.match(setting?.defaultText, /^\d+[KMG]?, by memory$/, name)
    }
  },
)
