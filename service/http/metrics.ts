/*
 * Prometheus metrics. Label values come from closed sets (registered routes, statuses, operations), never from URLs, so
 * clients cannot create new series. Counters that other modules keep are read at each scrape.
 */
import { Counter, Gauge, Histogram, Registry } from 'prom-client'

const SECONDS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]

export class Metrics {
  readonly registry = new Registry()
  readonly #requests: Histogram<'method' | 'route' | 'status'>
  readonly #bytes: Counter<'route'>
  readonly #store: Histogram<'operation' | 'result'>

  constructor() {
    const registers = [this.registry]
    this.#requests = new Histogram({
      name: 'btfmill_http_request_duration_seconds',
      help: 'Duration of HTTP requests in seconds',
      labelNames: ['method', 'route', 'status'],
      buckets: SECONDS,
      registers,
    })
    this.#bytes = new Counter({
      name: 'btfmill_http_response_bytes_total',
      help: 'Bytes of response bodies with a content-length',
      labelNames: ['route'],
      registers,
    })
    this.#store = new Histogram({
      name: 'btfmill_store_operation_duration_seconds',
      help: 'Duration of store operations in seconds, without reading bodies',
      labelNames: ['operation', 'result'],
      buckets: SECONDS,
      registers,
    })
  }

  /** Counts a store operation; `result` is `ok` or an error code. */
  storeOperation(operation: string, result: string, seconds: number): void {
    this.#store.observe({ operation, result }, seconds)
  }

  /** A counter that another module keeps; with a label, `read` gives a count for each of its values. */
  counter(
    name: string,
    help: string,
    read: () => Readonly<Record<string, number>>,
    label?: string,
  ): void {
    const counter = new Counter({
      name,
      help,
      labelNames: label === undefined ? [] : [label],
      registers: [this.registry],
      collect() {
        this.reset()
        for (const [value, count] of Object.entries(read()))
          this.inc(label === undefined ? {} : { [label]: value }, count)
      },
    })
    void counter
  }

  /** A gauge; `read` gives undefined while the value is not known. */
  gauge(name: string, help: string, read: () => number | undefined): void {
    const gauge = new Gauge({
      name,
      help,
      registers: [this.registry],
      collect() {
        const value = read()
        if (value === undefined) this.reset()
        else this.set(value)
      },
    })
    void gauge
  }

  /** A gauge with labels; `read` gives the value of each combination. Their number must be bounded. */
  labelledGauge<L extends string>(
    name: string,
    help: string,
    labelNames: readonly L[],
    read: () => Iterable<readonly [Readonly<Record<L, string>>, number]>,
  ): void {
    const gauge = new Gauge({
      name,
      help,
      labelNames: [...labelNames],
      registers: [this.registry],
      collect() {
        this.reset()
        for (const [labels, value] of read()) this.set(labels, value)
      },
    })
    void gauge
  }

  /** Counts a response; `route` is the registered pattern, `none` if no route matched. */
  countResponse(
    method: string,
    route = 'none',
    status: number,
    seconds: number,
    bytes: number,
  ): void {
    this.#requests.observe({ method, route, status }, seconds)
    if (bytes > 0) this.#bytes.inc({ route }, bytes)
  }
}
