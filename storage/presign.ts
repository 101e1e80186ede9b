/*
 * Presigned URLs: with one, anybody can read one object for a limited time, so a server can redirect its clients to the
 * bucket. A presigner is not part of `Store`, since few backends have such URLs. It is opened beside a store, by its
 * URL.
 */
import { GetObjectCommand } from '@aws-sdk/client-s3'
import { getSignedUrl } from '@aws-sdk/s3-request-presigner'
import { checkKey } from './name.ts'
import { connectS3 } from './s3.ts'

export interface PresignOptions {
  /** how long the URL is valid */
  seconds: number
  /** these three replace headers of the response */
  contentType?: string
  contentEncoding?: string
  cacheControl?: string
}

/** Makes the presigned URL of an object, which need not exist. Errors: `invalid_key`. */
export type Presigner = (key: string, options: PresignOptions) => Promise<string>

/** Opens the presigner of an S3 store, by the store's URL. Errors: `unsupported`. */
export async function presignS3(url: string): Promise<Presigner> {
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
