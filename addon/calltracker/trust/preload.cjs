'use strict'
/*
 * Loaded into every Node process of an app (NODE_OPTIONS=--require=…). Node from 22.21, 24.5 and 25 on follows HTTPS_PROXY
 * itself when NODE_USE_ENV_PROXY=1 is set; older ones ignore it. For those, this makes `https` (and what is built on its
 * Agent) and `fetch` (undici) tunnel through the proxy. It never fails a process: where something is not as expected,
 * Node stays as it was.
 */
const proxyUrl = process.env.https_proxy || process.env.HTTPS_PROXY

function followsProxyItself () {
  const [major, minor] = process.versions.node.split('.').map(Number)
  return major >= 25 || (major === 24 && minor >= 5) || (major === 22 && minor >= 21)
}

if (proxyUrl && process.versions.node && !process.versions.bun && !followsProxyItself()) {
  try {
    install(new URL(proxyUrl))
  } catch {
    // an unusable HTTPS_PROXY: as if this file were not there
  }
}

function install (proxy) {
  const https = require('https')
  const net = require('net')
  const tls = require('tls')
  const { Duplex } = require('stream')

  const bypassed = (process.env.no_proxy || process.env.NO_PROXY || '').split(/[\s,]+/).filter(Boolean)

  function goesThroughProxy (host) {
    return !bypassed.some(entry => {
      const name = entry.replace(/^\*?\./, '').toLowerCase()
      return entry === '*' || host.toLowerCase() === name || host.toLowerCase().endsWith('.' + name)
    })
  }

  // A byte stream to host:port by way of CONNECT. What is written before the proxy has agreed waits, so that the TLS layer
  // above can be made at once: agents expect a socket, not a promise of one.
  class Tunnel extends Duplex {
    constructor (host, port) {
      super({ allowHalfOpen: true })
      const authority = `${host.includes(':') ? `[${host}]` : host}:${port}`
      const socket = this._socket = net.connect(Number(proxy.port || 80), proxy.hostname.replace(/^\[|\]$/g, ''))
      socket.setNoDelay(true)
      const credentials = proxy.username
        ? 'Proxy-Authorization: Basic ' + Buffer.from(
          decodeURIComponent(proxy.username) + ':' + decodeURIComponent(proxy.password)).toString('base64') + '\r\n'
        : ''
      socket.write(`CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\n${credentials}\r\n`)
      this._open = false
      this._held = null
      let head = Buffer.alloc(0)
      const onHead = data => {
        head = Buffer.concat([head, data])
        const end = head.indexOf('\r\n\r\n')
        if (end < 0) {
          if (head.length > 65536) this.destroy(new Error('the proxy answered CONNECT with no end of headers'))
          return
        }
        const status = head.toString('latin1', 0, head.indexOf('\r\n'))
        if (!/^HTTP\/1\.[01] 2\d\d/.test(status)) {
          this.destroy(new Error(`the proxy ${proxy.host} refused the connection to ${authority}: ${status}`))
          return
        }
        socket.removeListener('data', onHead)
        socket.on('data', chunk => { if (!this.push(chunk)) socket.pause() })
        this._open = true
        const rest = head.subarray(end + 4)
        if (rest.length) this.push(rest)
        if (this._held) this._held()
        this.emit('connect')
      }
      socket.on('data', onHead)
      socket.on('end', () => this._open ? this.push(null) : this.destroy(new Error('the proxy closed the connection')))
      socket.on('error', error => this.destroy(error))
      socket.on('close', () => this.destroy())
    }

    _read () { this._socket.resume() }
    _write (chunk, encoding, done) {
      if (this._open) this._socket.write(chunk, encoding, done)
      else this._held = () => { this._held = null; this._socket.write(chunk, encoding, done) }
    }

    _final (done) { this._socket.end(done) }
    _destroy (error, done) { this._socket.destroy(); done(error) }
    ref () { this._socket.ref(); return this }
    unref () { this._socket.unref(); return this }
    setNoDelay () { return this }
    setKeepAlive (...options) { this._socket.setKeepAlive(...options); return this }
    setTimeout (...options) { this._socket.setTimeout(...options); return this }
  }

  const createConnection = https.Agent.prototype.createConnection
  https.Agent.prototype.createConnection = function (options, ...rest) {
    if (typeof options !== 'object' || options === null || options.socket || options.socketPath ||
        !goesThroughProxy(String(options.host || 'localhost'))) {
      return createConnection.call(this, options, ...rest)
    }
    const tunnel = new Tunnel(String(options.host || 'localhost'), Number(options.port || 443))
    return createConnection.call(this, { ...options, socket: tunnel }, ...rest)
  }

  // undici takes its dispatcher from this global, once for all copies of it in a process. Loading Node's own copy puts an
  // Agent there, whose class is the one that we need; it has to be done now, since an Agent that is there first stays.
  const DISPATCHER = Symbol.for('undici.globalDispatcher.1')
  void globalThis.Headers
  const found = globalThis[DISPATCHER]
  if (found) {
    try {
      globalThis[DISPATCHER] = new found.constructor({ connect })
    } catch {
      // an undici of another make: as if this file were not there
    }
  }

  function connect (options, callback) {
    const secure = options.protocol === 'https:'
    const host = options.hostname.replace(/^\[|\]$/g, '')
    const port = Number(options.port || (secure ? 443 : 80))
    const through = secure && goesThroughProxy(host)
    const raw = through ? new Tunnel(host, port) : net.connect({ host, port })
    const socket = secure
      ? tls.connect({ socket: raw, host, servername: options.servername || (net.isIP(host) ? undefined : host), ALPNProtocols: ['http/1.1'] })
      : raw
    const onError = error => { callback(error, null) }
    raw.on('error', error => socket.destroy(error))
    socket.once('error', onError)
    socket.once(secure ? 'secureConnect' : 'connect', () => {
      socket.removeListener('error', onError)
      callback(null, socket)
    })
  }
}
