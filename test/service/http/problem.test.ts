// Requests that are refused by the parser or before they reach a route.
import t from 'tap'
import { sendRaw, startTestService } from '../../helpers/test-service.ts'

const { url } = await startTestService(t)

/** Status and code of the response to raw bytes. */
async function answerTo(text: string) {
  const answer = await sendRaw(url, text)
  const [head = '', body = ''] = answer.split('\r\n\r\n')
  t.match(head, /content-type: application\/problem\+json/i, text.slice(0, 40))
  const { status, code } = JSON.parse(body)
  t.equal(Number(/^HTTP\/1\.1 (\d+)/.exec(head)?.[1]), status)
  return { status, code }
}

t.test('an unreadable request gets a problem document, and its connection is closed', async (t) => {
  t.match(await answerTo('GARBAGE\r\n\r\n'), { status: 400, code: 'invalid_request' })
  t.match(await answerTo('GET / HTTP/1.1\r\nhost: a\r\nhost : b\r\n\r\n'), { status: 400 })
  const long = `GET /healthz HTTP/1.1\r\nhost: a\r\nx: ${'y'.repeat(40_000)}\r\n\r\n`
  t.match(await answerTo(long), { status: 431, code: 'headers_too_large' })
})
