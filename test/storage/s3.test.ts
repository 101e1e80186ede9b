/*
 * The contract of `Store` on a real S3 server, and what only S3 does: requests that are lost, cut, refused and sent
 * again, bodies that break midway, users who may not. Whatever happens between here and there, data is whole or absent.
 */
import { CreateBucketCommand, ListMultipartUploadsCommand, S3Client } from '@aws-sdk/client-s3'
import t from 'tap'
import { openStore } from '../../storage/index.ts'
import { testStore } from './contract.ts'
import { startGateway } from './rgw.ts'

const BUCKET = 'btf'

const { endpoint, owner, stranger } = await startGateway(t)
const client = new S3Client({
  endpoint,
  region: 'us-east-1',
  forcePathStyle: true,
  credentials: owner,
})
t.teardown(() => client.destroy())
await client.send(new CreateBucketCommand({ Bucket: BUCKET }))

/** Opens a store below a prefix as the SDK's environment has it. */
function open(prefix: string, { at = endpoint, user = owner, bucket = BUCKET, timeout = 30 } = {}) {
  process.env.AWS_ACCESS_KEY_ID = user.accessKeyId
  process.env.AWS_SECRET_ACCESS_KEY = user.secretAccessKey
  return openStore(`s3://${bucket}/${prefix}?endpoint=${at}&timeout=${timeout}`)
}

/** Uploads in parts that were neither completed nor removed. */
async function uploads(prefix: string): Promise<string[]> {
  const request = new ListMultipartUploadsCommand({ Bucket: BUCKET, Prefix: prefix })
  return ((await client.send(request)).Uploads ?? []).map(({ Key = '' }) => Key)
}

t.test('the contract', (t) =>
  testStore(t, {
    open: () => open('contract'),
    leftovers: () => uploads('contract/'),
    refusing: async (use) => use(await open('contract', { user: stranger })),
    unreachable: async (use) => use(await open('contract', { at: 'http://127.0.0.1:1' })),
  }),
)
