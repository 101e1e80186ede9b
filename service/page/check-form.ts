/* /check: a form for a BPF object, which the service checks, or the browser itself. */
import type { LocalChoices } from './local-kernels.ts'
import type { Page } from './render.ts'

export interface CheckFormView {
  readonly kernels: number
  /** the largest object in bytes */
  readonly limit: number
  readonly isKept: boolean
  /** for browsers that check an object themselves: the path of the worker, and the kernels to choose from */
  readonly local: { readonly worker: string; readonly choices: LocalChoices }
}

/** /check, the form. */
export function checkFormPage(view: CheckFormView): Page {
  return {
    template: 'check',
    title: 'Check on which kernels a BPF object loads',
    description: `Drop a BPF object and see on which of ${view.kernels} Linux kernels it loads and attaches, with the program and the C line where it does not.`,
    path: '/check',
    part: 'check',
    view,
  }
}
