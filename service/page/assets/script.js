// Adds what plain HTML lacks: copy buttons, a drop zone for objects, and forms that send themselves when a choice changes.
// Everything works without it.

for (const code of document.querySelectorAll('.copy')) {
  if (!navigator.clipboard) break
  const button = document.createElement('button')
  button.type = 'button'
  button.className = 'copy-button'
  button.textContent = 'Copy'
  button.setAttribute('aria-label', `Copy: ${code.dataset.label ?? 'command'}`)
  button.addEventListener('click', async () => {
    await navigator.clipboard.writeText(code.querySelector('code').textContent)
    button.textContent = 'Copied'
    setTimeout(() => {
      button.textContent = 'Copy'
    }, 2000)
  })
  code.append(button)
}

for (const select of document.querySelectorAll('select[data-send]'))
  select.addEventListener('change', () => select.form.requestSubmit())

for (const zone of document.querySelectorAll('.drop')) {
  const input = zone.querySelector('input[type=file]')
  const status = zone.querySelector('[role=status]')
  const send = () => {
    if (input.files.length === 0) return
    const names = Array.from(input.files, ({ name }) => name).join(', ')
    status.textContent = `Checking ${names} …`
    zone.requestSubmit()
  }
  const over = (event) => {
    event.preventDefault()
    zone.classList.add('over')
  }
  zone.addEventListener('dragenter', over)
  zone.addEventListener('dragover', over)
  zone.addEventListener('dragleave', () => zone.classList.remove('over'))
  zone.addEventListener('drop', (event) => {
    event.preventDefault()
    zone.classList.remove('over')
    if (event.dataTransfer.files.length === 0) return
    input.files = event.dataTransfer.files
    send()
  })
  input.addEventListener('change', send)
}

// `/` goes to the search box, as on other sites that engineers use
document.addEventListener('keydown', (event) => {
  if (event.key !== '/' || event.ctrlKey || event.metaKey || event.altKey) return
  if (/^(?:INPUT|SELECT|TEXTAREA)$/.test(document.activeElement?.tagName ?? '')) return
  event.preventDefault()
  document.querySelector('input[type=search]')?.focus()
})
