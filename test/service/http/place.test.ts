// Places: taken for the time of a response, and not kept by a reader that takes next to nothing.
import { EventEmitter } from 'node:events'
import { mock } from 'node:test'
import type { FastifyReply, FastifyRequest } from 'fastify'
import t, { type Test } from 'tap'
import { Quota } from '../../../service/concurrency.ts'
import { takePlace } from '../../../service/http/place.ts'

const SECONDS = 100

/** A response that holds the only place of a quota. */
function heldBy(t: Test) {
  mock.timers.enable({ apis: ['setInterval'] })
  t.teardown(() => mock.timers.reset())
  const places = new Quota(1, 'taken')
  const raw = new EventEmitter()
  const socket = {
    bytesWritten: 0,
    writableLength: 0,
    destroy: () => raw.emit('close'),
  }
  const request = { ip: '192.0.2.1', raw: { socket } } as unknown as FastifyRequest
  takePlace(places, request, { raw } as unknown as FastifyReply, SECONDS)
  const isHeld = () => {
    try {
      places.take('other')()
      return false
    } catch {
      return true
    }
  }
  /** Lets the client take bytes while the service has written more, then the time pass. */
  const pass = (taken: number, waiting = 1e6) => {
    socket.bytesWritten += taken + waiting - socket.writableLength
    socket.writableLength = waiting
    mock.timers.tick(SECONDS * 1000)
  }
  return { isHeld, pass, raw }
}

t.test('a reader that takes next to nothing loses its place', async (t) => {
  const { isHeld, pass } = heldBy(t)
  pass(1e6)
  pass(200 * 1024)
  t.ok(isHeld(), 'it reads')
  pass(5000)
  t.notOk(isHeld())
})

t.test('an answer that the service itself is slow to make keeps its place', async (t) => {
  const { isHeld, pass, raw } = heldBy(t)
  for (let n = 0; n < 5; n++) pass(10, 0)
  t.ok(isHeld(), 'nothing waits for the reader')
  pass(0)
  t.ok(isHeld(), 'bytes wait since a moment')
  raw.emit('close')
  t.notOk(isHeld())
})
