/** The version in package.json; generated files name it. */
export const VERSION = '0.1.0'
