// Search in a site that is opened from a folder: a browser starts no Worker from file://, so the script
// of one runs in a frame that nobody sees. The theme's own way loads this from a server of others.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.append(frame)
      this.inside = frame.contentWindow
      const page = this.inside.document
      // What the script posts goes to the page, and a script of words of a language is one more element.
      this.inside.postMessage = data => this.dispatchEvent(new MessageEvent("message", {data}))
      this.inside.importScripts = async (...urls) => { for (const each of urls) await this.run(page, each) }
      this.loaded = this.run(page, url)
    }

    run(page, url) {
      const script = page.createElement("script")
      script.src = new URL(url, location.href).href
      return new Promise((done, failed) => {
        Object.assign(script, {onload: done, onerror: failed})
        page.body.append(script)
      })
    }

    async postMessage(data) {
      await this.loaded
      this.inside.dispatchEvent(new this.inside.MessageEvent("message", {data}))
    }

    terminate() {
      this.inside.frameElement.remove()
    }
  }
}
