/* Debian's Chromium without a window, for tests of the pages and for screenshots. */
import { type Browser, chromium } from 'playwright-core'

/** Starts the browser; the caller closes it. It is the package `chromium` of docker/packages.txt. */
export const startBrowser = (): Promise<Browser> =>
  chromium.launch({
    executablePath: '/usr/bin/chromium',
    // root has no user namespaces for Chromium's sandbox; the pages are this service's own
    args: ['--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu'],
  })
