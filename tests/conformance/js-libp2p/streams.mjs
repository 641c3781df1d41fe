// SPDX-License-Identifier: AGPL-3.0-or-later
//
// Both sides of a federation stream, written from docs/specification/federation-transport.md §2, §5 and §6 alone.

import {
  BATCH, CREDIT, FRAME_BYTES_MAX, Fault, FrameDecoder, GOODBYE, HELLO, PING, PONG, VERSION, WINDOW_BYTES,
  WINDOW_MESSAGES, encodeFrame
} from './frames.mjs'

const HELLO_TIMEOUT_MS = 5_000
const PING_INTERVAL_MS = 5_000
const SILENCE_MS = 20_000
const GOODBYE_WAIT_MS = 500

/** The end of a stream; `code` is that of §6. */
export class Ended extends Error {
  constructor (code) {
    super(code)
    this.code = code
  }
}

/** Frames on a libp2p stream. */
class FrameStream {
  #decoder = new FrameDecoder()
  #bytes
  #closed

  constructor (stream, connection) {
    this.stream = stream
    this.connection = connection
    this.#bytes = stream[Symbol.asyncIterator]()
    this.#closed = new Promise((resolve) => stream.addEventListener('close', resolve, { once: true }))
    this.heardAt = Date.now()
  }

  async write (frame) {
    await this.writeBytes(encodeFrame(frame))
  }

  async writeBytes (bytes) {
    try {
      if (!this.stream.send(bytes)) {
        await this.stream.onDrain()
      }
    } catch {
      throw new Ended('stream_broken')
    }
  }

  async read () {
    for (;;) {
      const frame = this.#decoder.next()
      if (frame !== undefined) {
        this.heardAt = Date.now()
        if (frame[0] === GOODBYE) {
          throw new Ended(frame[1])
        }
        return frame
      }
      let chunk
      try {
        chunk = await this.#bytes.next()
      } catch {
        throw new Ended('stream_broken')
      }
      if (chunk.done) {
        throw new Ended('stream_closed')
      }
      this.#decoder.add(chunk.value.subarray())
    }
  }

  /** Read the hello, which the other side's first frame must be; longer frames are taken after it. */
  async readHello () {
    const late = new Promise((resolve, reject) => {
      setTimeout(() => reject(new Ended('hello_timeout')), HELLO_TIMEOUT_MS).unref()
    })
    const frame = await Promise.race([this.read(), late])
    if (frame[0] !== HELLO) {
      throw new Fault('hello_expected')
    }
    if (frame[1] !== VERSION) {
      throw new Fault('version_unknown')
    }
    this.#decoder.bytesMax = FRAME_BYTES_MAX
    return frame
  }

  /** End with a goodbye, then a reset (§2); a silent peer loses its connection too (§5). */
  async end (error) {
    clearInterval(this.watch)
    if (error instanceof Fault || error.saysGoodbye) {
      try {
        await this.write([GOODBYE, error.code, ''])
        await Promise.race([this.#closed, new Promise((resolve) => setTimeout(resolve, GOODBYE_WAIT_MS))])
      } catch { }
    }
    this.stream.abort(new Error(error.code ?? 'fault of our own'))
    if (error.code === 'heartbeat_timeout') {
      this.connection.abort(new Error('silent'))
    }
  }

  /** Call back when the other side has sent no frame for too long. */
  watchSilence (onSilence) {
    this.watch = setInterval(() => {
      if (Date.now() - this.heardAt > SILENCE_MS) {
        onSilence(new Ended('heartbeat_timeout'))
      }
    }, 1_000)
  }
}

/** A goodbye that we say although nothing is wrong. */
export function goodbye (code) {
  return Object.assign(new Ended(code), { saysGoodbye: true })
}

/** The side that opened a stream: sends messages and pings. */
export class Opener {
  #frames
  #sent = { count: 0, bytes: 0 }
  #credit = { count: 0, bytes: 0 }
  #ping
  #nonce = 0
  #waiting = []

  constructor (stream, connection, tell) {
    this.#frames = new FrameStream(stream, connection)
    this.tell = tell
    this.ended = new Promise((resolve) => { this.resolveEnded = resolve })
  }

  async greet (hello) {
    await this.#frames.write(hello)
    try {
      this.hello = await this.#frames.readHello()
    } catch (error) {
      await this.#finish(error)
      throw error
    }
    this.#read().catch((error) => this.#finish(error))
    this.#frames.watchSilence((error) => this.#finish(error))
    this.beat = setInterval(() => this.ping().catch((error) => this.#finish(error)), PING_INTERVAL_MS)
    return this.hello
  }

  async ping () {
    if (this.#ping === undefined) {
      this.#ping = ++this.#nonce
      await this.#frames.write([PING, this.#ping])
    }
  }

  /** Write one batch, once the window allows it. */
  async send (messages) {
    const bytes = messages.reduce((sum, one) => sum + one.length, 0)
    while (this.#sent.count + messages.length - this.#credit.count > WINDOW_MESSAGES ||
        this.#sent.bytes + bytes - this.#credit.bytes > WINDOW_BYTES) {
      await new Promise((resolve) => this.#waiting.push(resolve))
    }
    this.#sent = { count: this.#sent.count + messages.length, bytes: this.#sent.bytes + bytes }
    await this.#frames.write([BATCH, messages])
  }

  /** Write what a test wants, good or bad. */
  async writeBytes (bytes) {
    await this.#frames.writeBytes(bytes)
  }

  async close (code) {
    await this.#finish(goodbye(code))
  }

  async #read () {
    for (;;) {
      const [kind, ...fields] = await this.#frames.read()
      if (kind === PONG) {
        if (fields[0] !== this.#ping) {
          throw new Fault('pong_unexpected')
        }
        this.#ping = undefined
        this.tell({ event: 'pong', nonce: fields[0] })
      } else if (kind === CREDIT) {
        this.#take({ count: fields[0], bytes: fields[1] })
      } else {
        throw new Fault('frame_unexpected')
      }
    }
  }

  #take (credit) {
    const isSound = credit.count >= this.#credit.count && credit.count <= this.#sent.count &&
      credit.bytes >= this.#credit.bytes && credit.bytes <= this.#sent.bytes
    if (!isSound) {
      throw new Fault('credit_impossible')
    }
    this.#credit = credit
    this.tell({ event: 'credit', ...credit })
    this.#waiting.splice(0).forEach((resume) => resume())
  }

  async #finish (error) {
    if (this.isEnded) {
      return
    }
    this.isEnded = true
    clearInterval(this.beat)
    await this.#frames.end(error)
    this.resolveEnded(error.code ?? error.message)
  }
}

/** The side that accepted a stream: receives messages, gives credit, answers pings. */
export class Acceptor {
  #frames
  #taken = { count: 0, bytes: 0 }
  #givenCredit = { count: 0, bytes: 0 }

  constructor (stream, connection, tell) {
    this.#frames = new FrameStream(stream, connection)
    this.tell = tell
  }

  async run (hello, isKnown) {
    let code
    try {
      const theirs = await this.#frames.readHello()
      if (!isKnown) {
        throw goodbye('unknown_peer')
      }
      this.tell({ event: 'hello', fields: theirs.slice(1) })
      await this.#frames.write(hello)
      const silence = new Promise((resolve, reject) => this.#frames.watchSilence(reject))
      await Promise.race([silence, this.#read()])
    } catch (error) {
      code = error.code ?? error.message
      await this.#frames.end(error)
    }
    this.tell({ event: 'ended', code })
  }

  /** End the stream from outside. */
  async close (code) {
    await this.#frames.end(goodbye(code))
  }

  async #read () {
    for (;;) {
      const [kind, fields] = await this.#frames.read()
      if (kind === PING) {
        await this.#frames.write([PONG, fields])
        this.tell({ event: 'ping', nonce: fields })
      } else if (kind === BATCH) {
        await this.#takeBatch(fields)
      } else {
        throw new Fault('frame_unexpected')
      }
    }
  }

  async #takeBatch (messages) {
    this.#taken.count += messages.length
    this.#taken.bytes += messages.reduce((sum, one) => sum + one.length, 0)
    if (this.#taken.count - this.#givenCredit.count > WINDOW_MESSAGES ||
        this.#taken.bytes - this.#givenCredit.bytes > WINDOW_BYTES) {
      throw new Fault('window_exceeded')
    }
    this.tell({ event: 'messages', messages })
    this.#givenCredit = { ...this.#taken }
    await this.#frames.write([CREDIT, this.#taken.count, this.#taken.bytes])
  }
}
