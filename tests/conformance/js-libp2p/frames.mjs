// SPDX-License-Identifier: AGPL-3.0-or-later
//
// The frames of a federation stream, written from docs/specification/federation-transport.md §3 and §4 alone.
// A frame here is its array: [kind, ...fields]. Sections in the comments are those of that page.

import { decode, encode } from '@msgpack/msgpack'

export const PROTOCOL_ID = '/ecot/federation/1.0.0' // §1
export const VERSION = 1

export const HELLO = 0
export const BATCH = 1
export const PING = 2
export const PONG = 3
export const GOODBYE = 4
export const CREDIT = 5

// §4
export const FRAME_BYTES_MAX = 1_048_576
export const FRAME_BYTES_MIN = 327_680
export const HELLO_BYTES_MAX = 4_096
export const MESSAGE_BYTES_MAX = 262_144
export const BATCH_MESSAGES_MAX = 1_024
export const WINDOW_MESSAGES = 2_048
export const WINDOW_BYTES = 4_194_304
const AGENT_CHARS_MAX = 128
const ORIGIN_CHARS_MAX = 300
const CODE_CHARS_MAX = 64
const TEXT_CHARS_MAX = 256
const LEDGER_ID_BYTES = 32
const VARINT_BYTES_MAX = 4

/** What the other side did wrong; `code` is said in the goodbye (§6). */
export class Fault extends Error {
  constructor (code, detail = '') {
    super(`${code} ${detail}`)
    this.code = code
  }
}

const isInteger = (value, min = 0) => Number.isSafeInteger(value) && value >= min
const isString = (value, max) => typeof value === 'string' && [...value].length <= max
const isBytes = (value, max) => value instanceof Uint8Array && value.length <= max

const FIELDS = {
  [HELLO]: [
    (version) => isInteger(version, 1) && version <= 65_535,
    (agent) => isString(agent, AGENT_CHARS_MAX),
    (origin) => isString(origin, ORIGIN_CHARS_MAX),
    (ledger) => isBytes(ledger, LEDGER_ID_BYTES) && ledger.length === LEDGER_ID_BYTES,
    (longest) => isInteger(longest, FRAME_BYTES_MIN)
  ],
  [BATCH]: [
    (messages) => Array.isArray(messages) && messages.length >= 1 && messages.length <= BATCH_MESSAGES_MAX &&
      messages.every((one) => isBytes(one, MESSAGE_BYTES_MAX))
  ],
  [PING]: [isInteger],
  [PONG]: [isInteger],
  [GOODBYE]: [
    (code) => isString(code, CODE_CHARS_MAX) && /^[a-z0-9_]+$/.test(code),
    (text) => isString(text, TEXT_CHARS_MAX)
  ],
  [CREDIT]: [isInteger, isInteger]
}

function sameBytes (one, other) {
  return one.length === other.length && one.every((byte, place) => byte === other[place])
}

/** Return the length and the payload as one array of bytes. */
export function encodeFrame (frame) {
  const payload = encode(frame)
  const length = []
  let rest = payload.length
  while (rest >= 0x80) {
    length.push((rest & 0x7f) | 0x80)
    rest >>>= 7
  }
  length.push(rest)
  const encoded = new Uint8Array(length.length + payload.length)
  encoded.set(length)
  encoded.set(payload, length.length)
  return encoded
}

/** Return the frame of a payload; throws `Fault`. */
export function decodePayload (payload) {
  let frame
  try {
    frame = decode(payload)
  } catch (error) {
    throw new Fault('frame_malformed', error.message)
  }
  const checks = Array.isArray(frame) ? FIELDS[frame[0]] : undefined
  if (checks === undefined || typeof frame[0] !== 'number' || frame.length <= checks.length) {
    throw new Fault('frame_malformed', 'unknown kind, or too few fields')
  }
  if (!checks.every((isSound, place) => isSound(frame[place + 1]))) {
    throw new Fault('frame_malformed', 'a field is not what it may be')
  }
  if (frame.length > checks.length + 1 || !sameBytes(encode(frame), payload)) {
    throw new Fault('frame_not_canonical')
  }
  return frame
}

/** Cuts what a stream brings into frames. */
export class FrameDecoder {
  #held = new Uint8Array(0)

  constructor (bytesMax = HELLO_BYTES_MAX) {
    this.bytesMax = bytesMax
  }

  add (bytes) {
    const held = new Uint8Array(this.#held.length + bytes.length)
    held.set(this.#held)
    held.set(bytes, this.#held.length)
    this.#held = held
  }

  /** Return the next whole frame, or undefined; throws `Fault`. */
  next () {
    const header = this.#length()
    if (header === undefined) {
      return undefined
    }
    const [length, start] = header
    if (length > this.bytesMax) {
      throw new Fault('frame_too_long', `${length} bytes`)
    }
    if (this.#held.length < start + length) {
      return undefined
    }
    const payload = this.#held.slice(start, start + length)
    this.#held = this.#held.slice(start + length)
    return decodePayload(payload)
  }

  #length () {
    let value = 0
    for (let place = 0; place < VARINT_BYTES_MAX; place++) {
      const byte = this.#held[place]
      if (byte === undefined) {
        return undefined
      }
      value |= (byte & 0x7f) << (7 * place)
      if (byte < 0x80) {
        if (byte === 0 && place > 0) {
          throw new Fault('varint_not_minimal')
        }
        return [value, place + 1]
      }
    }
    throw new Fault('varint_too_long')
  }
}
