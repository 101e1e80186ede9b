// The picture of a layout is to scale, and has a title and a link for every member.
import { readFileSync } from 'node:fs'
import t from 'tap'
import { listType, parseBtf } from '../../../bpf/index.ts'
import { anchorOf, drawLayout, placeOf } from '../../../service/page/layout-picture.ts'
import { littleKernels } from '../../helpers/core.ts'

const kernel = parseBtf(readFileSync(littleKernels().get('x86_64')!))
const listing = (name: string) => listType(kernel, kernel.find(name, 'STRUCT')!)

t.test('members have the width of their size', (t) => {
  const { svg, rowBytes } = drawLayout(listing('list_head'))!
  t.equal(rowBytes, 16)
  const shapes = [...svg.matchAll(/title>([^<]+)<\/title><path class="k-(\w+)" d="([^"]+)"/g)]
  t.same(
    shapes.map(([, title, kind]) => [title, kind]),
    [
      ['next at 0, 8 bytes', 'ptr'],
      ['prev at 8, 8 bytes', 'ptr'],
    ],
  )
  const [first, second] = shapes.map(([, , , d]) => /M([\d.]+) [\d.]+H([\d.]+)/.exec(d!)!)
  t.equal(Number(first![2]) - Number(first![1]), Number(second![2]) - Number(second![1]))
  t.equal(first![2], second![1])
  t.end()
})

t.test('a row is a cache line, or more of a large struct', (t) => {
  const sized = (size: number) => drawLayout({ ...listing('list_head'), size })?.rowBytes
  t.same([16, 32, 33, 6144, 6145].map(sized), [16, 32, 64, 64, 128])
  const { svg } = drawLayout(listing('task_struct'))!
  t.ok((svg.match(/class="axis"/g) ?? []).length <= 96)
  t.equal(drawLayout({ ...listing('list_head'), lines: [] }), undefined)
  t.end()
})

t.test('names are escaped, and ids have letters, digits and points only', (t) => {
  const hostile = '"><script>hit()</script>'
  const { lines, ...rest } = listing('list_head')
  const renamed = lines.map((line) => (line.is === 'member' ? { ...line, path: hostile } : line))
  const { svg } = drawLayout({ ...rest, name: hostile, lines: renamed })!
  t.notMatch(svg, /<script|"">/)
  t.match(anchorOf('se.avg<'), /^m-se\.avg_$/)
  t.equal(placeOf(13), '1:5')
  t.equal(placeOf(16), '2')
  t.end()
})
