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

// The check of an object in this browser: a worker has the library and the object, and only ever reads from the service.
function localCheckOf(zone, status) {
  const part = zone.querySelector('.local')
  const [choice, kernels] = [part.querySelector('[data-local]'), part.querySelector('select')]
  const [bar, cancel] = [part.querySelector('progress'), part.querySelector('button')]
  let worker
  const end = (text) => {
    worker?.terminate()
    worker = undefined
    bar.hidden = cancel.hidden = true
    status.textContent = text
  }
  const show = ({ html, title, lines }) => {
    end('')
    const main = document.querySelector('main')
    main.innerHTML = html
    main.querySelector('[data-lines]').href = URL.createObjectURL(lines)
    document.title = `${title} · btfmill`
    main.focus()
    scrollTo(0, 0)
  }
  part.hidden = false
  choice.addEventListener('change', () => {
    kernels.disabled = !choice.checked
  })
  cancel.addEventListener('click', () => end('The check was cancelled.'))
  return {
    isChosen: () => choice.checked,
    start(file) {
      end(`Checking ${file.name} on this machine …`)
      bar.removeAttribute('value')
      bar.hidden = cancel.hidden = false
      worker = new Worker(zone.dataset.worker, { type: 'module' })
      worker.onerror = () => end('This browser could not load the library; check on the service.')
      worker.onmessage = ({ data }) => {
        if (data.html) show(data)
        else if (data.error) end(data.error)
        else {
          bar.max = Math.max(data.total, 1)
          bar.value = data.done
          const read = `${(data.bytes / 1e6).toFixed(1)} MB of BTF`
          status.textContent = `${data.done} of ${data.total} kernels are done, with ${read}.`
        }
      }
      worker.postMessage({ file, kernels: kernels.value })
    },
  }
}

for (const zone of document.querySelectorAll('.drop')) {
  const input = zone.querySelector('input[type=file]')
  const status = zone.querySelector('[role=status]')
  const local = localCheckOf(zone, status)
  const send = () => {
    if (input.files.length === 0) return
    const names = Array.from(input.files, ({ name }) => name).join(', ')
    status.textContent = `Checking ${names} …`
    zone.requestSubmit()
  }
  zone.addEventListener('submit', (event) => {
    if (!local.isChosen()) return
    event.preventDefault() // the object stays here
    local.start(input.files[0])
  })
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
