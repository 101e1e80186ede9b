/* Charts of a number over versions of Linux, as SVG: a line for each series, a step where the number changes. */

/** The number of one series at its kernels, oldest first; undefined where the kernel has none. */
export interface ChartLine {
  readonly label: string
  readonly points: readonly { readonly version: string; readonly value: number | undefined }[]
}

const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [880, 240, 64, 12, 12, 34] as const
/** Colours, and the dashes of the lines after each round of colours. */
const COLOURS = 6
const DASHES = ['', '7 3', '2 3', '9 2 2 2']

/** How the nth line looks: the class of its colour, and its dashes. */
export const lineStyle = (n: number): { readonly colour: string; readonly dashes: string } => ({
  colour: `c${n % COLOURS}`,
  dashes: DASHES[Math.floor(n / COLOURS) % DASHES.length]!,
})

/** Labels of the axes. */
const MAX_LABELS = 12
const TICKS = 4

/**
 * Draws lines over `versions`, which are in order. Lines differ in colour and dashes. Undefined if there is nothing to see:
 * no value, or one version.
 */
export function drawChart(
  lines: readonly ChartLine[],
  versions: readonly string[],
  label: string,
): string | undefined {
  const values = lines.flatMap(({ points }) => points.flatMap(({ value }) => value ?? []))
  if (values.length === 0 || versions.length < 2) return undefined
  const [least, most] = rangeOf(values)
  const place = new Map(versions.map((version, i) => [version, i]))
  const x = (version: string) =>
    LEFT + ((place.get(version) ?? 0) / (versions.length - 1)) * (WIDTH - LEFT - RIGHT)
  const y = (value: number) =>
    HEIGHT - BOTTOM - ((value - least) / (most - least)) * (HEIGHT - TOP - BOTTOM)
  const parts: string[] = []
  for (let tick = 0; tick <= TICKS; tick++) {
    const value = least + ((most - least) * tick) / TICKS
    parts.push(
      `<line class="grid" x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${round(y(value))}" y2="${round(y(value))}"/>`,
      `<text x="${LEFT - 8}" y="${round(y(value) + 4)}" text-anchor="end">${round(value)}</text>`,
    )
  }
  const step = Math.ceil(versions.length / MAX_LABELS)
  for (const [i, version] of versions.entries()) {
    if (i % step !== 0 && i !== versions.length - 1) continue
    if (i % step !== 0 && i % step < step / 2) continue // too close to the last label
    const anchor = i === 0 ? 'start' : i === versions.length - 1 ? 'end' : 'middle'
    parts.push(
      `<text x="${round(x(version))}" y="${HEIGHT - 12}" text-anchor="${anchor}">${escapeText(version.replace(/-\d{1,2}$/, ''))}</text>`,
    )
  }
  for (const [i, line] of lines.entries()) parts.push(...pathsOf(line, i, x, y))
  return `<svg class="chart" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${escapeText(label)}">${parts.join('')}</svg>`
}

/** The steps of a line, broken where there is no value; a point where a stretch has one kernel only. */
function pathsOf(
  { label, points }: ChartLine,
  n: number,
  x: (version: string) => number,
  y: (value: number) => number,
): string[] {
  const { colour, dashes } = lineStyle(n)
  const look = `class="${colour}"${dashes && ` stroke-dasharray="${dashes}"`}`
  const paths: string[] = []
  let stretch: string[] = []
  let last: number | undefined
  const end = () => {
    if (stretch.length > 0)
      paths.push(
        `<path ${look} d="M${stretch.join('')}"><title>${escapeText(label)}</title></path>`,
      )
    stretch = []
    last = undefined
  }
  for (const { version, value } of points) {
    if (value === undefined) {
      end()
      continue
    }
    const [px, py] = [round(x(version)), round(y(value))]
    if (stretch.length === 0) stretch.push(`${px} ${py}h0.1`)
    else stretch.push(last === value ? `H${px}` : `H${px}V${py}`)
    last = value
  }
  end()
  return paths
}

/** The least and the greatest value with some room, whole numbers. */
function rangeOf(values: readonly number[]): [number, number] {
  const [least, most] = values.reduce(
    ([low, high], value) => [Math.min(low, value), Math.max(high, value)],
    [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY],
  )
  const unit = Math.max(1, Math.ceil((most - least) / TICKS / 2))
  const low = Math.max(0, least - unit)
  const height = Math.ceil((most + unit - low) / TICKS) * TICKS
  return [low, low + height]
}

const round = (value: number): number => Math.round(value * 10) / 10

const escapeText = (text: string): string =>
  text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`)
