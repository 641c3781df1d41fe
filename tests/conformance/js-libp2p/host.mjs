// SPDX-License-Identifier: AGPL-3.0-or-later
//
// A js-libp2p host that speaks the federation transport, driven by tests/conformance/test_js_libp2p.py: one JSON object
// a line, questions on standard input, answers and events on standard output. Bytes are {"hex": "..."}.

import './node20.mjs'

import { createInterface } from 'node:readline'
import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { generateKeyPairFromSeed } from '@libp2p/crypto/keys'
import { identify } from '@libp2p/identify'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'
import { Fault, FrameDecoder, FRAME_BYTES_MAX, PROTOCOL_ID, VERSION, encodeFrame } from './frames.mjs'
import { Acceptor, Opener } from './streams.mjs'

const toText = (key, value) => value instanceof Uint8Array ? { hex: Buffer.from(value).toString('hex') } : value
const toBytes = (key, value) => typeof value?.hex === 'string' ? new Uint8Array(Buffer.from(value.hex, 'hex')) : value

function say (answer) {
  process.stdout.write(JSON.stringify(answer, toText) + '\n')
}

let node
let hello
let opener
let acceptor
const known = new Set()

const QUESTIONS = {
  async start ({ seed, ledger, origin }) {
    hello = [0, VERSION, 'ecot-conformance-js/1', origin, ledger, FRAME_BYTES_MAX]
    node = await createLibp2p({
      privateKey: await generateKeyPairFromSeed('Ed25519', seed),
      addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
      transports: [tcp()],
      connectionEncrypters: [noise()],
      streamMuxers: [yamux()],
      services: { identify: identify(), ping: ping() }
    })
    await node.handle(PROTOCOL_ID, (stream, connection) => {
      const peer = connection.remotePeer.toString()
      acceptor = new Acceptor(stream, connection, (event) => say({ peer, ...event }))
      return acceptor.run(hello, known.has(peer))
    })
    return { peer: node.peerId.toString(), addresses: node.getMultiaddrs().map(String) }
  },

  /** Let a peer speak to us. */
  async know ({ peer }) {
    known.add(peer)
    return {}
  },

  /** Connect, and say what the other side's identify answered. */
  async identify ({ address }) {
    const identified = new Promise((resolve) => {
      node.addEventListener('peer:identify', (event) => resolve(event.detail), { once: true })
    })
    await node.dial(multiaddr(address))
    const found = await identified
    return { agent: found.agentVersion, protocols: found.protocols, peer: found.peerId.toString() }
  },

  /** Measure a round trip by libp2p's own ping protocol. */
  async ping ({ address }) {
    return { rttMs: await node.services.ping.ping(multiaddr(address)) }
  },

  /** Open a stream and exchange hellos; `hello` replaces ours. */
  async open ({ address, hello: given }) {
    const connection = await node.dial(multiaddr(address))
    const stream = await connection.newStream(PROTOCOL_ID)
    opener = new Opener(stream, connection, (event) => say(event))
    const theirs = await opener.greet(given ?? hello)
    return { hello: theirs.slice(1) }
  },

  async send ({ messages }) {
    await opener.send(messages)
    return {}
  },

  async beat () {
    await opener.ping()
    return {}
  },

  /** Write bytes as they are, and say how the stream then ends. */
  async write ({ bytes }) {
    await opener.writeBytes(bytes)
    return { code: await opener.ended }
  },

  async goodbye ({ code, side }) {
    await (side === 'acceptor' ? acceptor : opener).close(code)
    return {}
  },

  async ended () {
    return { code: await opener.ended }
  },

  /** Decode one encoded frame and encode it again. */
  async frame ({ bytes }) {
    const decoder = new FrameDecoder(FRAME_BYTES_MAX)
    decoder.add(bytes)
    const frame = decoder.next()
    return { frame, bytes: frame === undefined ? undefined : encodeFrame(frame) }
  },

  async stop () {
    await node?.stop()
    return {}
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const { id, ask, ...rest } = JSON.parse(line, toBytes)
  // Not awaited: a question may wait for what a later one brings about.
  QUESTIONS[ask](rest).then(
    (answer) => say({ id, ...answer }),
    (error) => say({ id, code: error.code, error: error instanceof Fault ? error.message : error.stack })
  ).finally(() => ask === 'stop' && process.exit(0))
}
await node?.stop()
process.exit(0)
