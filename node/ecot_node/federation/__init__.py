# SPDX-License-Identifier: AGPL-3.0-or-later
"""Federation: how this node speaks with its partners' nodes.

- ``port``: what a transport offers to the layers above, and its errors;
- ``framing``: the frames on a stream, as bytes (pure);
- ``memory``: the in-memory twin, for tests and simulations;
- ``libp2p_host``: the real one, which alone imports libp2p, and which ``bootstrap`` alone imports.
"""
