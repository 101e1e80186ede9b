/*
 * Addresses at which anybody may read one object for a while, so that a server can send its clients to the bucket. Not
 * a method of `Store`, since few stores have such addresses: it is opened beside one, by its URL.
 */
import { GetObjectCommand } from '@aws-sdk/client-s3'
import { getSignedUrl } from '@aws-sdk/s3-request-presigner'
import { checkKey } from './name.ts'
import { connectS3 } from './s3.ts'

export interface PresignOptions {
  /** for which the address is good */
  seconds: number
  /** headers of the answer, whatever the bucket has */
  contentType?: string
  contentEncoding?: string
  cacheControl?: string
}

/** The address of an object, which may not be there. Errors: `invalid_key`. */
export type Presign = (key: string, options: PresignOptions) => Promise<string>

/** What signs addresses of a store in a bucket, by its URL. Errors: `unsupported`. */
export async function presignS3(url: string): Promise<Presign> {
  const { client, location } = await connectS3(url.slice('s3:'.length))
  return (key, { seconds, contentType, contentEncoding, cacheControl }) => {
    checkKey(key)
    const request = new GetObjectCommand({
      Bucket: location.bucket,
      Key: `${location.prefix}${key}`,
      ResponseContentType: contentType,
      ResponseContentEncoding: contentEncoding,
      ResponseCacheControl: cacheControl,
    })
    return getSignedUrl(client, request, { expiresIn: seconds })
  }
}
