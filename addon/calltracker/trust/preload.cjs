'use strict'
/*
 * Loaded into every Node process of an app (NODE_OPTIONS=--require=…). Node from 22.21, 24.5 and 25 on follows HTTPS_PROXY
 * itself when NODE_USE_ENV_PROXY=1 is set, but only with its global agent and `fetch`; older ones ignore it. This makes
 * every other Agent of `https`, and on older ones `fetch` (undici), tunnel through the proxy. It never fails a process:
 * where something is not as expected, Node stays as it was.
 */
const proxyUrl = process.env.https_proxy || process.env.HTTPS_PROXY

function followsProxyItself () {
  const [major, minor] = process.versions.node.split('.').map(Number)
  return major >= 25 || (major === 24 && minor >= 5) || (major === 22 && minor >= 21)
}

if (proxyUrl && process.versions.node && !process.versions.bun) {
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

  const bypassed = (process.env.no_proxy || process.env.NO_PROXY || '').split(/[\s,]+/).filter(Boolean)

  function goesThroughProxy (host) {
    return !bypassed.some(entry => {
      const name = entry.replace(/^\*?\./, '').toLowerCase()
      return entry === '*' || host.toLowerCase() === name || host.toLowerCase().endsWith('.' + name)
    })
  }

  // Calls back with a socket that leads to host:port by way of CONNECT. It is a plain socket of Node's, so that TLS above it
  // can let the process end while a connection is only kept open.
  function tunnel (host, port, callback) {
    const authority = `${host.includes(':') ? `[${host}]` : host}:${port}`
    const socket = net.connect(Number(proxy.port || 80), proxy.hostname.replace(/^\[|\]$/g, ''))
    socket.setNoDelay(true)
    const credentials = proxy.username
      ? 'Proxy-Authorization: Basic ' + Buffer.from(
        decodeURIComponent(proxy.username) + ':' + decodeURIComponent(proxy.password)).toString('base64') + '\r\n'
      : ''
    socket.write(`CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\n${credentials}\r\n`)
    let head = Buffer.alloc(0)

    function settle (error) {
      socket.removeListener('readable', onReadable)
      socket.removeListener('error', settle)
      socket.removeListener('end', onEnd)
      if (error) socket.destroy()
      callback(error, error ? undefined : socket)
    }

    function onReadable () {
      for (let data = socket.read(); data !== null; data = socket.read()) {
        head = Buffer.concat([head, data])
        const end = head.indexOf('\r\n\r\n')
        if (end >= 0) {
          const status = head.toString('latin1', 0, head.indexOf('\r\n'))
          if (!/^HTTP\/1\.[01] 2\d\d/.test(status)) {
            return settle(new Error(`the proxy ${proxy.host} refused the connection to ${authority}: ${status}`))
          }
          if (head.length > end + 4) socket.unshift(head.subarray(end + 4))
          return settle(null)
        }
        if (head.length > 65536) return settle(new Error('the proxy answered CONNECT with no end of headers'))
      }
    }

    function onEnd () { settle(new Error('the proxy closed the connection')) }

    socket.on('readable', onReadable)
    socket.on('error', settle)
    socket.on('end', onEnd)
  }

  const createConnection = https.Agent.prototype.createConnection
  https.Agent.prototype.createConnection = function (options, callback, ...rest) {
    if (typeof options !== 'object' || options === null || typeof callback !== 'function' || options.socket ||
        options.socketPath || this.options?.proxyEnv || !goesThroughProxy(String(options.host || 'localhost'))) {
      return createConnection.call(this, options, callback, ...rest)
    }
    tunnel(String(options.host || 'localhost'), Number(options.port || 443), (error, socket) => {
      if (error) callback(error)
      else callback(null, createConnection.call(this, { ...options, socket }))
    })
  }

  if (followsProxyItself()) return

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
    if (!secure) return report(net.connect({ host, port }), 'connect', callback)
    const begin = socket => report(tls.connect({
      ...(socket ? { socket } : { port }),
      host,
      servername: options.servername || (net.isIP(host) ? undefined : host),
      ALPNProtocols: ['http/1.1']
    }), 'secureConnect', callback)
    if (!goesThroughProxy(host)) return begin()
    tunnel(host, port, (error, socket) => { error ? callback(error, null) : begin(socket) })
  }

  function report (socket, event, callback) {
    const onError = error => { callback(error, null) }
    socket.once('error', onError)
    socket.once(event, () => {
      socket.removeListener('error', onError)
      callback(null, socket)
    })
  }
}
