// Tests that the memory store fulfils the contract of `Store`.
import t from 'tap'
import { openStore } from '../../storage/index.ts'
import { testStore } from '../helpers/store-contract.ts'

await testStore(t, {
  open: () => openStore('memory:'),
  leftovers: async () => [],
  refusing: 'memory has no permissions',
  unreachable: 'memory is always reachable',
  resident: true,
})
