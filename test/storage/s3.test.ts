import { CreateBucketCommand, ListMultipartUploadsCommand, S3Client } from '@aws-sdk/client-s3'
import t from 'tap'
import { openStore } from '../../storage/index.ts'
import { testStore } from './contract.ts'

const endpoint = 'http://127.0.0.1:7480'
process.env.AWS_ACCESS_KEY_ID = 'test'
process.env.AWS_SECRET_ACCESS_KEY = 'testtest'
const client = new S3Client({ endpoint, region: 'us-east-1', forcePathStyle: true })
await client.send(new CreateBucketCommand({ Bucket: 'btf' })).catch((e) => console.log(e.name))
const url = `s3://btf/p?endpoint=${endpoint}`
await testStore(t, {
  open: () => openStore(url),
  leftovers: async () =>
    ((await client.send(new ListMultipartUploadsCommand({ Bucket: 'btf' }))).Uploads ?? []).map(
      (u) => u.Key ?? '',
    ),
  refusing: async (use) => {
    process.env.AWS_ACCESS_KEY_ID = 'other'
    const s = await openStore(url)
    try {
      await s.head('x').catch(() => {})
      process.env.AWS_ACCESS_KEY_ID = 'test'
      await use(s)
    } finally {
      process.env.AWS_ACCESS_KEY_ID = 'test'
    }
  },
  unreachable: async (use) => {
    await use(await openStore('s3://btf/p?endpoint=http://127.0.0.1:1'))
  },
})
