// A hundred kills of each side of a mirror, of a service with blobs and of one with packs, on disk; and some on S3.
import t from 'tap'
import { makeBucket } from '../helpers/bucket.ts'
import { surviveKills } from '../helpers/killed-mirrors.ts'

t.test('a mirror and its service survive a hundred kills each, at every kind of step', (t) =>
  surviveKills(t, 100, { everywhere: true }),
)

t.test('a mirror in a bucket survives kills at every kind of step', async (t) => {
  const bucket = await makeBucket(t)
  await bucket.open('mirrors') // sets the credentials
  const storeAt = (prefix: string) => `s3://btf/mirrors/${prefix}?endpoint=${bucket.endpoint}`
  await surviveKills(t, 36, { everywhere: true, bucket: { storeAt } })
})
