// The contract of `Store`, in memory.
import t from 'tap'
import { openStore } from '../../storage/index.ts'
import { testStore } from '../helpers/store-contract.ts'

await testStore(t, {
  open: () => openStore('memory:'),
  leftovers: async () => [],
  refusing: 'memory refuses no one',
  unreachable: 'memory is always there',
  resident: true,
})
