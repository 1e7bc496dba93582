// Browsers start no worker for a page that was opened from disk; there, a hidden frame runs the search's script.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.append(frame)
      this.frame = frame.contentWindow
      this.ready = new Promise((resolve) => {
        const script = frame.contentDocument.createElement("script")
        script.src = url
        script.onload = resolve
        this.frame.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }))
        frame.contentDocument.body.append(script)
      })
    }

    postMessage(data) {
      this.ready.then(() => this.frame.dispatchEvent(new MessageEvent("message", { data })))
    }
  }
}
