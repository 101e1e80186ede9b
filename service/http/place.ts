/*
 * Places: the few answers that the service makes at a time. A client that reads its answer very slowly would keep others
 * from a place, so such an answer must move on at a least rate. The timeout of the connection alone allows a byte at a time.
 */
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Quota } from '../concurrency.ts'
import { callerOf } from './requester.ts'

/** The least rate of an answer that waits for its reader, in bytes per second. */
const LEAST_RATE = 1024

/**
 * Takes a place until the response is over. A reader that takes less than `LEAST_RATE` on average over `seconds`, while
 * bytes wait for it, is disconnected. Errors: `busy`.
 */
export function takePlace(
  places: Quota,
  request: FastifyRequest,
  reply: FastifyReply,
  seconds: number,
): void {
  const giveBack = places.take(callerOf(request))
  const { socket } = request.raw
  // what is written, without what waits in this process
  const sent = () => socket.bytesWritten - socket.writableLength
  let [before, waited] = [sent(), false]
  const timer = setInterval(() => {
    const now = sent()
    const waits = socket.writableLength > 0
    if (waits && waited && now - before < seconds * LEAST_RATE) socket.destroy()
    before = now
    waited = waits
  }, seconds * 1000).unref()
  reply.raw.once('close', () => {
    clearInterval(timer)
    giveBack()
  })
}
