/* A bucket on a real S3 server, and stores in it. */
import {
  CreateBucketCommand,
  ListMultipartUploadsCommand,
  PutObjectCommand,
  S3Client,
} from '@aws-sdk/client-s3'
import type { Test } from 'tap'
import { openStore, type Store } from '../../storage/index.ts'
import { type Credentials, type Gateway, startGateway } from './rgw.ts'

const NAME = 'btf'

interface Opening {
  /** a proxy's URL; without it requests go to the server */
  endpoint?: string
  user?: Credentials
  bucket?: string
  /** seconds */
  timeout?: number
}

export interface Bucket extends Gateway {
  /** Opens a store below a prefix. Sets the credentials in the environment. */
  open(prefix: string, opening?: Opening): Promise<Store>
  /** The keys below a prefix with an incomplete multipart upload. */
  uploads(prefix: string): Promise<string[]>
  /** Stores an object under a key that our store would not make. */
  putForeign(key: string): Promise<unknown>
}

/** Starts a server with one bucket, and stops it after the test. */
export async function makeBucket(t: Test): Promise<Bucket> {
  const gateway = await startGateway(t)
  const client = new S3Client({
    endpoint: gateway.endpoint,
    region: 'us-east-1',
    forcePathStyle: true,
    credentials: gateway.owner,
  })
  t.teardown(() => client.destroy())
  await client.send(new CreateBucketCommand({ Bucket: NAME }))
  return {
    ...gateway,
    open(
      prefix,
      { endpoint = gateway.endpoint, user = gateway.owner, bucket = NAME, timeout = 30 } = {},
    ) {
      process.env.AWS_ACCESS_KEY_ID = user.accessKeyId
      process.env.AWS_SECRET_ACCESS_KEY = user.secretAccessKey
      return openStore(`s3://${bucket}/${prefix}?endpoint=${endpoint}&timeout=${timeout}`)
    },
    async uploads(prefix) {
      const request = new ListMultipartUploadsCommand({ Bucket: NAME, Prefix: prefix })
      return ((await client.send(request)).Uploads ?? []).map(({ Key = '' }) => Key)
    },
    putForeign: (Key) => client.send(new PutObjectCommand({ Bucket: NAME, Key, Body: 'x' })),
  }
}
