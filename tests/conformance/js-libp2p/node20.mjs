// SPDX-License-Identifier: AGPL-3.0-or-later
//
// What libraries of js-libp2p use of ECMAScript 2024 and Node.js 20 lacks.

Promise.withResolvers ??= function withResolvers () {
  const made = {}
  made.promise = new this((resolve, reject) => Object.assign(made, { resolve, reject }))
  return made
}
