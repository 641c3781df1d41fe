# SPDX-License-Identifier: AGPL-3.0-or-later
"""The statements that SQLite and PostgreSQL share, and the number of the schema that they expect.

The tables themselves are made by `migrations/`, one file a schema number; a released migration is never edited.
Parameters are written `?1`, as SQLite has them; the PostgreSQL adapter reads them as `$1`.

| table | a row is | keyed by |
|---|---|---|
| `head` | ledger id, epoch, size and newest checkpoint (one row) | - |
| `records` | a record with its leaf hash | `idx`; `entry_id` unique (time-ordered, so appends stay cheap) |
| `attachments` | an erasable attachment | `idx, position` |
| `tiles`, `edges` | a full tile; the incomplete tile of a level above 0 | `level, idx`; `level` |
| `checkpoints`, `cosignatures` | a checkpoint that left the house; a witness's line | `size`; `size, witness` |
| `outbox`, `inbox`, `meta` | a promised message; a message acted on; a small value | `sequence`; `peer, key`; `key` |
| `witnessed`, `forks` | a partner's newest checkpoint; a proof of two histories | `origin`; `sequence` |
| `decision_logs`, `decision_leaves` | a decision log; a leaf of it | `origin`; `origin, number`; `origin, tid` unique |
| `drafts`, `quarantine`, `erasures` | what their names say | `draft_id`; `sequence`; `idx, position` |
"""

from typing import Final

SCHEMA_VERSION: Final = 1
"""Number of the newest migration; stored as Alembic's revision, four digits."""

VERSION_OF_STORE: Final = "SELECT version_num FROM alembic_version"
EPOCH: Final = "SELECT epoch FROM head"
HEAD: Final = "SELECT ledger, size, note, epoch FROM head"
HEAD_OPEN: Final = "UPDATE head SET epoch = epoch + 1, ledger = coalesce(ledger, ?1)"
HEAD_ADVANCE: Final = "UPDATE head SET size = ?1, note = coalesce(?2, note) WHERE epoch = ?3 AND size = ?4"
EDGES: Final = "SELECT level, hashes FROM edges ORDER BY level"

RECORD_COLUMNS: Final = ("idx", "entry_id", "received_at_ms", "record", "leaf_hash")
ATTACHMENT_COLUMNS: Final = ("idx", "position", "class", "salt", "content")

_RECORDS: Final = f"SELECT {', '.join(RECORD_COLUMNS)} FROM records"
_ATTACHMENTS: Final = f"SELECT {', '.join(ATTACHMENT_COLUMNS)} FROM attachments"

RECORDS_FROM: Final = f"{_RECORDS} WHERE idx >= ?1 ORDER BY idx LIMIT ?2"
RECORD_AT: Final = f"{_RECORDS} WHERE idx = ?1"
ENTRY_BY_ID: Final = "SELECT idx, received_at_ms, record FROM records WHERE entry_id = ?1"
LEAF_HASHES: Final = "SELECT leaf_hash FROM records WHERE idx >= ?1 ORDER BY idx LIMIT ?2"
RECORD_ADD: Final = f"INSERT INTO records ({', '.join(RECORD_COLUMNS)}) VALUES (?1, ?2, ?3, ?4, ?5)"
ATTACHMENTS_BETWEEN: Final = f"{_ATTACHMENTS} WHERE idx >= ?1 AND idx < ?2 ORDER BY idx, position"
ATTACHMENT_ADD: Final = f"INSERT INTO attachments ({', '.join(ATTACHMENT_COLUMNS)}) VALUES (?1, ?2, ?3, ?4, ?5)"
ATTACHMENT_ERASE: Final = "DELETE FROM attachments WHERE idx = ?1 AND position = ?2"
ERASURE_ADD: Final = (
    "INSERT INTO erasures (idx, position, erased_at_ms, ground) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING"
)
ERASURES: Final = "SELECT idx, position, erased_at_ms, ground FROM erasures ORDER BY idx, position"

TILE: Final = "SELECT hashes FROM tiles WHERE level = ?1 AND idx = ?2"
TILE_ADD: Final = "INSERT INTO tiles (level, idx, hashes) VALUES (?1, ?2, ?3)"
EDGE_PUT: Final = (
    "INSERT INTO edges (level, hashes) VALUES (?1, ?2) ON CONFLICT (level) DO UPDATE SET hashes = excluded.hashes"
)

CHECKPOINT_NEWEST: Final = "SELECT size, note FROM head WHERE note IS NOT NULL"
CHECKPOINT_OF_SIZE: Final = (
    "SELECT size, note FROM checkpoints WHERE size = ?1 "
    "UNION ALL SELECT size, note FROM head WHERE note IS NOT NULL AND size = ?1 LIMIT 1"
)
CHECKPOINT_KEEP: Final = "INSERT INTO checkpoints (size, note) VALUES (?1, ?2) ON CONFLICT DO NOTHING"
CHECKPOINT_KEEP_HEAD: Final = (
    "INSERT INTO checkpoints (size, note) SELECT size, note FROM head WHERE note IS NOT NULL AND size = ?1 "
    "ON CONFLICT DO NOTHING"
)
CHECKPOINTS_FORGET: Final = "DELETE FROM checkpoints WHERE size < ?1"
COSIGNATURES_FORGET: Final = "DELETE FROM cosignatures WHERE size < ?1"
COSIGNATURE_PUT: Final = (
    "INSERT INTO cosignatures (size, witness, line) SELECT size, ?2, ?3 FROM checkpoints WHERE size = ?1 "
    "ON CONFLICT (size, witness) DO UPDATE SET line = excluded.line"
)
COSIGNATURES: Final = "SELECT witness, line FROM cosignatures WHERE size = ?1 ORDER BY witness"
COSIGNED_NEWEST: Final = (
    "SELECT size, note FROM checkpoints WHERE size = "
    "(SELECT size FROM cosignatures GROUP BY size HAVING count(*) >= ?1 ORDER BY size DESC LIMIT 1)"
)
COSIGNED: Final = (
    "SELECT cosignatures.size, checkpoints.note, cosignatures.witness, cosignatures.line "
    "FROM cosignatures JOIN checkpoints ON checkpoints.size = cosignatures.size "
    "WHERE cosignatures.size IN "
    "(SELECT DISTINCT size FROM cosignatures WHERE size > ?1 ORDER BY size DESC LIMIT ?2) "
    "ORDER BY cosignatures.size DESC, cosignatures.witness"
)
WITNESSED: Final = "SELECT size, root, note FROM witnessed WHERE origin = ?1"
WITNESSED_ADD: Final = "INSERT INTO witnessed (origin, size, root, note) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING"
WITNESSED_SWAP: Final = "UPDATE witnessed SET size = ?2, root = ?3, note = ?4 WHERE origin = ?1 AND size = ?5"
DECISION_LOG: Final = "SELECT size, frontier, note FROM decision_logs WHERE origin = ?1"
DECISION_LOG_ADD: Final = (
    "INSERT INTO decision_logs (origin, size, frontier, note) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING"
)
DECISION_LOG_SWAP: Final = (
    "UPDATE decision_logs SET size = ?2, frontier = ?3, note = ?4 WHERE origin = ?1 AND size = ?5"
)
# Only what the statement before it, in the same transaction, has let in: the frontier is of these very leaves.
DECISION_LEAF_ADD: Final = (
    "INSERT INTO decision_leaves (origin, number, tid, outcome) SELECT origin, ?2, ?3, ?4 FROM decision_logs "
    "WHERE origin = ?1 AND size = ?5 AND frontier = ?6 ON CONFLICT DO NOTHING"
)
DECISION_LEAVES: Final = (
    "SELECT number, tid, outcome FROM decision_leaves WHERE origin = ?1 AND number >= ?2 ORDER BY number LIMIT ?3"
)
DECISION_LEAF_OF: Final = "SELECT number, tid, outcome FROM decision_leaves WHERE origin = ?1 AND tid = ?2"
FORK_ADD: Final = (
    "INSERT INTO forks (digest, origin, first_note, second_note, proof) VALUES (?1, ?2, ?3, ?4, ?5) "
    "ON CONFLICT DO NOTHING"
)
FORKS: Final = "SELECT origin, first_note, second_note, proof FROM forks ORDER BY sequence"

OUTBOX: Final = "SELECT sequence, peer, key, payload FROM outbox WHERE sequence > ?1 ORDER BY sequence LIMIT ?2"
OUTBOX_OF_PEER: Final = (
    "SELECT sequence, peer, key, payload FROM outbox WHERE sequence > ?1 AND peer = ?3 ORDER BY sequence LIMIT ?2"
)
OUTBOX_ADD: Final = "INSERT INTO outbox (peer, key, payload) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING"
OUTBOX_REMOVE: Final = "DELETE FROM outbox WHERE sequence = ?1"
INBOX_SEEN: Final = "SELECT 1 FROM inbox WHERE peer = ?1 AND key = ?2"
INBOX_ADD: Final = "INSERT INTO inbox (peer, key, seen_at_ms) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING"
INBOX_FORGET: Final = "DELETE FROM inbox WHERE seen_at_ms < ?1"
META: Final = "SELECT value FROM meta WHERE key = ?1"
META_PUT: Final = "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
META_DELETE: Final = "DELETE FROM meta WHERE key = ?1"

DRAFT: Final = "SELECT draft_id, expires_at_ms, content FROM drafts WHERE draft_id = ?1"
DRAFTS_AFTER: Final = (
    "SELECT draft_id, expires_at_ms, content FROM drafts WHERE draft_id > ?1 ORDER BY draft_id LIMIT ?2"
)
DRAFTS_OTHER_COUNT: Final = "SELECT count(*) FROM drafts WHERE draft_id <> ?1"
DRAFT_PUT: Final = (
    "INSERT INTO drafts (draft_id, expires_at_ms, content) VALUES (?1, ?2, ?3) ON CONFLICT (draft_id) "
    "DO UPDATE SET expires_at_ms = excluded.expires_at_ms, content = excluded.content"
)
DRAFT_DELETE: Final = "DELETE FROM drafts WHERE draft_id = ?1"
DRAFTS_EXPIRE: Final = "DELETE FROM drafts WHERE expires_at_ms <= ?1"
QUARANTINE_ADD: Final = "INSERT INTO quarantine (entry_hash, body, error) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING"
QUARANTINED: Final = "SELECT entry_hash, body, error FROM quarantine WHERE entry_hash = ?1"
QUARANTINE: Final = "SELECT entry_hash, body, error FROM quarantine ORDER BY sequence"
