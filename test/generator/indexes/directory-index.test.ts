import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { readListing } from '../../../generator/indexes/directory-index.ts'
import { startNginx } from '../../helpers/nginx.ts'
import { IMPATIENT } from '../../helpers/run-directory.ts'
import { startServer } from '../../helpers/test-server.ts'

const KERNELS = ['3.10.0-957.el7', '3.10.0-1160.el7'].map(
  (version) => `kernel-debuginfo-${version}.x86_64.rpm`,
)
const OTHERS = [
  'kernel-debuginfo-common-x86_64-3.10.0-957.el7.x86_64.rpm',
  'libstdc++-debuginfo-4.8.5-36.el7.x86_64.rpm',
]
const FILES = [...KERNELS, ...OTHERS]

/** Reads a page: name, version, revision and architecture of each package. */
async function read(t: Test, base: string): Promise<string[][]> {
  const cache = mkdtempSync(join(tmpdir(), 'listing-'))
  t.teardown(() => rmSync(cache, { recursive: true }))
  const files = await readListing(base, { cache, retry: IMPATIENT })
  for (const { url } of files) t.ok(url.startsWith(`${base}/`), url)
  return files.map(({ name, version, revision, arch }) => [name, version, revision, arch]).sort()
}

const EXPECTED = [
  ['kernel-debuginfo', '3.10.0', '1160.el7', 'x86_64'],
  ['kernel-debuginfo', '3.10.0', '957.el7', 'x86_64'],
  ['kernel-debuginfo-common-x86_64', '3.10.0', '957.el7', 'x86_64'],
  ['libstdc++-debuginfo', '4.8.5', '36.el7', 'x86_64'],
]

/** Reads a page that is given as text, for servers that are not installed here. */
async function readPage(t: Test, html: string): Promise<string[][]> {
  const { url } = await startServer(t, (_, response) => void response.end(html))
  return await read(t, `${url}/7/x86_64`)
}

t.test('a listing of nginx is read', async (t) => {
  const root = t.testdir({})
  mkdirSync(join(root, '7/x86_64/repodata'), { recursive: true })
  for (const file of FILES) writeFileSync(join(root, '7/x86_64', file), file)
  const url = await startNginx(t, root, { listing: true })
  t.same(await read(t, `${url}/7/x86_64`), EXPECTED)
  await t.rejects(
    read(t, `${url}/7`),
    { code: 'invalid_index' },
    'a directory that has only directories',
  )
  await t.rejects(read(t, `${url}/8`), { code: 'not_found_upstream' })
})

// mod_autoindex with FancyIndexing and HTMLTable: icons, links for sorting, the parent directory as a path
t.test('a listing of Apache is read', async (t) => {
  const row = (
    file: string,
  ) => `<tr><td valign="top"><img src="/icons/unknown.gif" alt="[   ]"></td>
<td><a href="${file.replaceAll('+', '%2b')}">${file.slice(0, 20)}..&gt;</a></td>
<td align="right">2018-11-12 14:37  </td><td align="right">346M</td><td>&nbsp;</td></tr>`
  const page = `<!DOCTYPE HTML PUBLIC "-//W3C//DTD HTML 3.2 Final//EN">
<html><head><title>Index of /7/x86_64</title></head><body><h1>Index of /7/x86_64</h1>
<table><tr><th><a href="?C=N;O=D">Name</a></th><th><a href="?C=M;O=A">Last modified</a></th></tr>
<tr><td><a href="/7/">Parent Directory</a></td></tr>
<tr><td><a href="repodata/">repodata/</a></td></tr>
${FILES.map(row).join('\n')}
</table><address>Apache/2.4.6 (CentOS) Server at debuginfo.example Port 80</address></body></html>`
  t.same(await readPage(t, page), EXPECTED)
})

// mod_dirlisting: XHTML, every name percent-encoded
t.test('a listing of lighttpd is read', async (t) => {
  const encode = (file: string) =>
    file.replaceAll(/[-_.+]/g, (char) => `%${char.charCodeAt(0).toString(16)}`)
  const row = (file: string) => `<tr><td class="n"><a href="${encode(file)}">${file}</a></td>
<td class="m">2018-Nov-12 14:37:00</td><td class="s">346.1M</td><td class="t">application/x-rpm</td></tr>`
  const page = `<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.1//EN" "http://www.w3.org/TR/xhtml11/DTD/xhtml11.dtd">
<html xmlns="http://www.w3.org/1999/xhtml" xml:lang="en"><head><title>Index of /7/x86_64/</title></head>
<body><h2>Index of /7/x86_64/</h2><div class="list"><table summary="Directory Listing">
<tr class="d"><td class="n"><a href="../">..</a>/</td></tr>
${FILES.map(row).join('\n')}
</table></div><div class="foot">lighttpd/1.4.69</div></body></html>`
  t.same(await readPage(t, page), EXPECTED)
})

t.test('links that leave the directory or are not packages are ignored', async (t) => {
  const [file] = KERNELS
  const hostile = [
    `http://other.example/7/x86_64/${file}`,
    `//other.example/7/x86_64/${file}`,
    `file:///7/x86_64/${file}`,
    `../${file}`,
    `%2e%2e/${file}`,
    `/${file}`,
    `sub/${file}`,
    `sub%2f${file}`,
    `..%2f..%2f${file}`,
    `javascript:${file}`,
    `${file}.asc`,
    'kernel-debuginfo.rpm',
    'debuginfo-1.x86_64.rpm',
    `${'a'.repeat(5000)}-1-1.x86_64.rpm`,
    'kernel-debuginfo-1 2-1.x86_64.rpm',
    'kernel-debuginfo-1&#0;-1.x86_64.rpm',
    '-1-1.x86_64.rpm',
  ].map((href) => `<a href="${href}">x</a>`)
  const valid = `<base href="http://other.example/"><A HREF='${KERNELS[1]}'>x</A><a href=${KERNELS[1]}?x#y>`
  t.same(await readPage(t, `${hostile.join('\n')}${valid}<a name="x"><a href`), [EXPECTED[0]])
  await t.rejects(readPage(t, hostile.join('\n')), {
    code: 'invalid_index',
    message: /no link to an .rpm file/,
  })
})

t.test('a page without packages, or with too many links, is rejected', async (t) => {
  for (const page of [
    '',
    '{}',
    '<html><body>Please sign in</body></html>',
    '\0\0\0',
    '<'.repeat(1e6),
  ])
    await t.rejects(readPage(t, page), { code: 'invalid_index' }, page.slice(0, 10))
  const links = '<a href="x.rpm"></a>'.repeat(600_000)
  await t.rejects(readPage(t, links), { code: 'too_large' })
})

t.test('a page of elements that never end is rejected at once', async (t) => {
  const file = `<a href="${KERNELS[0]}">`
  await t.rejects(readPage(t, `<html>${'<b>'.repeat(1_000_000)}${file}`), {
    code: 'invalid_index',
    message: /more than 1000 open elements/,
  })
  const rows = `<tr><td>${file}</a><br><img src=x>`.repeat(2000)
  t.equal((await readPage(t, `<table>${rows}`)).length, 1, 'rows and images need no end tag')
})
