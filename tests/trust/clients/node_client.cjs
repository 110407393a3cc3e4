// Node, as an app uses it: node_client.cjs openai|openai-stream|fetch|https   (openai: from NODE_PATH)
const ask = { model: 'gpt-5-mini', messages: [{ role: 'user', content: 'Hello' }] }
const url = 'https://api.openai.com/v1/chat/completions'
const headers = { authorization: 'Bearer sk-test-trust', 'content-type': 'application/json' }

const tell = (kind, text) => process.stdout.write(`${kind} ${text}\n`)

const modes = {
  async openai () {
    const OpenAI = require('openai')
    const answer = await new OpenAI({ maxRetries: 0 }).chat.completions.create(ask)
    tell('answer', answer.choices[0].message.content)
  },
  async 'openai-stream' () {
    const OpenAI = require('openai')
    for await (const chunk of await new OpenAI({ maxRetries: 0 }).chat.completions.create({ ...ask, stream: true })) {
      tell('chunk', chunk.choices[0].delta.content)
    }
  },
  async fetch () {
    const answer = await fetch(url, { method: 'POST', headers, body: JSON.stringify(ask) })
    tell('answer', (await answer.json()).choices[0].message.content)
  },
  https () {
    return new Promise((resolve, reject) => {
      const https = require('https')
      const agent = new https.Agent({ keepAlive: true, timeout: 600000 }) // a connection kept open holds nobody back
      const request = https.request(url, { method: 'POST', headers, agent }, answer => {
        let text = ''
        answer.on('data', data => { text += data })
        answer.on('end', () => resolve(tell('answer', JSON.parse(text).choices[0].message.content)))
      })
      request.on('error', reject)
      request.end(JSON.stringify(ask))
    })
  }
}

modes[process.argv[2]]().catch(error => { console.error(error); process.exit(1) })
