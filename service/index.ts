/* The door of service/: the HTTP app and the fetch client. */
export { type AppOptions, buildApp } from './app.ts'
export { FetchError, type FetchErrorCode } from './ask.ts'
export { type FetchedBtf, type FetchOptions, fetchBtf } from './client.ts'
export { thisKernel } from './machine.ts'
export { type Server, type ServerOptions, startServer } from './server.ts'
