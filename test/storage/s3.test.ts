// The contract of `Store` on a real S3 server, and what only S3 does: users who may not, buckets that are not there.
import t from 'tap'
import { makeBucket } from './bucket.ts'
import { testStore } from './contract.ts'

const bucket = await makeBucket(t)

t.test('the contract', (t) =>
  testStore(t, {
    open: () => bucket.open('contract'),
    leftovers: () => bucket.uploads('contract/'),
    refusing: async (use) => use(await bucket.open('contract', { user: bucket.stranger })),
    unreachable: async (use) =>
      use(await bucket.open('contract', { endpoint: 'http://127.0.0.1:1' })),
  }),
)
