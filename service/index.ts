/* The public interface of service/: the HTTP app, the server and the fetch client. */
export { type AppOptions, buildApp } from './app.ts'
export {
  FetchError,
  type FetchErrorCode,
  type FetchedBtf,
  type FetchOptions,
  fetchBtf,
  thisKernel,
} from './client/client.ts'
export { type Server, type ServerOptions, startServer } from './server.ts'
