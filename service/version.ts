/** What this is, for who reads what it made: the version in package.json. */
export const VERSION = '0.1.0'
