/*
 * What Prometheus scrapes. Labels are of closed sets: routes as they are registered, never addresses; statuses;
 * operations. What others count in plain numbers is read when it is scraped.
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
      help: 'Requests, by how long their answers took',
      labelNames: ['method', 'route', 'status'],
      buckets: SECONDS,
      registers,
    })
    this.#bytes = new Counter({
      name: 'btfmill_http_response_bytes_total',
      help: 'Bytes of bodies whose length was known before',
      labelNames: ['route'],
      registers,
    })
    this.#store = new Histogram({
      name: 'btfmill_store_operation_duration_seconds',
      help: 'What the store was asked, by how long it took; its bodies are read after',
      labelNames: ['operation', 'result'],
      buckets: SECONDS,
      registers,
    })
  }

  /** Counts an operation of the store; `result` is `ok` or an error's code. */
  storeOperation(operation: string, result: string, seconds: number): void {
    this.#store.observe({ operation, result }, seconds)
  }

  /** A number that only grows and that somebody else counts, by its labels. */
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

  /** A number as it is now; none where it is not known. */
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

  /** Counts an answer: by its route as it is registered, none where there is no such route. */
  answer(method: string, route = 'none', status: number, seconds: number, bytes: number): void {
    this.#requests.observe({ method, route, status }, seconds)
    if (bytes > 0) this.#bytes.inc({ route }, bytes)
  }
}
