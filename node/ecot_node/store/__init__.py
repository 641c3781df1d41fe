# SPDX-License-Identifier: AGPL-3.0-or-later
"""The store: the only door to a ledger's durable bytes (`log.db`).

`port` says what every store does; `sqlite`, `postgres` and `memory` do it. Only `bootstrap` chooses one.
"""
