# SPDX-License-Identifier: AGPL-3.0-or-later
"""A node in a few lines, for tests of clients: a `LedgerKit` behind HTTP, honest unless a test makes it lie.

- `FakeNode.lies`: path -> a function that changes the bytes of the answer.
- `FakeNode.forks`: id -> proof that a log forked.
- `FakeNode.drops`: how many of the next posts are recorded and then lose their reply.
- `FakeNode.forget(count)`: the log forgets its last records, as after a restored backup.
"""

import os
from collections.abc import Callable
from typing import Any

import msgspec
from aiohttp import web
from ledger_kit import LedgerKit, seed

from ecot_protocol.domains.coop.acts import SealState
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.ledger.reasons import Reason
from ecot_protocol.wire.checkpoint import EMPTY_ROOT, Checkpoint, sign_checkpoint
from ecot_protocol.wire.cosignature import Cosigner
from ecot_protocol.wire.entry import BODY, ENTRIES, Attachment, Entry, decode_record, leaf_data
from ecot_protocol.wire.keys import is_signature_valid, key_id
from ecot_protocol.wire.merkle import Frontier, GroupTree, consistency_proof, leaf_hash
from ecot_protocol.wire.merkle_hash import subtree_root
from ecot_protocol.wire.note import NoteSigner, SignedNote
from ecot_protocol.wire.proof import TlogProof
from ecot_protocol.wire.reply import REPLY, Outcome, Recorded, RecordedBefore, Refused, Reply
from ecot_protocol.wire.tile import encode_bundle, parse_tile_path


class Tiles:
    """Tiles of a list of leaf hashes, computed when they are asked for."""

    def __init__(self, leaves: list[bytes]) -> None:
        self.leaves = leaves

    def tile(self, level: int, index: int, width: int) -> bytes:
        """Return `width` hashes of a tile."""
        span = 256**level
        first = index * 256 * span
        return b"".join(
            subtree_root(self.leaves[first + place * span : first + (place + 1) * span]) for place in range(width)
        )


class FakeNode:
    """A node on loopback. Use it as an async context manager; `url` is its address."""

    def __init__(self, kit: LedgerKit | None = None) -> None:
        self.kit = kit or LedgerKit()
        self.signer = NoteSigner(self.kit.state.coop.founded.origin, seed(self.kit.name + "log"))
        self.lies: dict[str, Callable[[bytes], bytes]] = {}
        self.drops = 0
        self.posts: list[bytes] = []
        self.attachments: dict[int, tuple[Attachment, ...]] = {}
        self.reads: dict[str, Callable[[web.Request], Any]] = {}
        self.tokens: dict[str, bytes] = {}
        self.cosigners: list[Cosigner] = []
        self.forks: dict[str, bytes] = {}
        self.url = ""
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> "FakeNode":
        app = web.Application(client_max_size=1 << 24)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{port}"
        return self

    async def __aexit__(self, *_exc: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    # --- the log ----------------------------------------------------------------------------------------------------

    @property
    def leaves(self) -> list[bytes]:
        """The leaf hashes of the log."""
        return [leaf_hash(leaf_data(record)) for record in self.kit.records]

    def tree(self) -> GroupTree:
        """The whole tree."""
        return GroupTree(Frontier.empty(), self.leaves)

    def tree_of(self, size: int) -> GroupTree:
        """The tree as it was."""
        return GroupTree(Frontier.empty(), self.leaves[:size])

    def checkpoint(self) -> str:
        """The newest head, signed."""
        tree = self.tree()
        return self.sign(Checkpoint(self.signer.verifier.name, tree.size, tree.root))

    def sign(self, head: Checkpoint) -> str:
        """Sign any head with the log's key."""
        return sign_checkpoint(head, self.signer).format().decode()

    def forget(self, count: int) -> None:
        """Drop the newest records and the state that they made."""
        del self.kit.records[len(self.kit.records) - count :]
        self.kit.state = self.kit.replayed()

    def seal(self) -> int:
        """Record a seal and return its index."""
        state = self.kit.state
        payload = SealState(digest=state.digest(), size=state.size)
        self._rows = list(state.dump())
        self._proofs = {(table, key): state.prove(table, key) for table, key, _ in self._rows}
        self.kit.must("coop.seal", payload, author=None, signers=(self.kit.agent,))
        self.sealed_at = len(self.kit.records) - 1
        return self.sealed_at

    def proof(self, index: int) -> bytes:
        """Return the ``.tlog-proof`` of a record."""
        return TlogProof(index, self.tree().inclusion_proof(index), self.checkpoint().encode()).format()

    def _witnessed(self, index: int) -> Any:
        if not self.cosigners:
            return _problem(404, "not_witnessed_yet")
        note = SignedNote.parse(self.checkpoint().encode())
        note = note.with_signatures(one.cosign(note.text, self.kit.now // 1_000) for one in self.cosigners)
        return TlogProof(index, self.tree().inclusion_proof(index), note.format()).format()

    # --- HTTP -------------------------------------------------------------------------------------------------------

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        """Tell what was recorded since ``Last-Event-ID``, then end, as a node that restarts."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        first = int(request.headers.get("Last-Event-ID", "-1")) + 1
        size = len(self.kit.records)
        await response.write(f'event: checkpoint\ndata: {{"size":{size}}}\n\n: still here\n\n'.encode())
        for name in self.forks:
            await response.write(f'event: fork\ndata: {{"id":"{name}"}}\n\n'.encode())
        for index in range(first, size):
            data = msgspec.json.encode({"index": index, "type": self._item(index)["type"]}).decode()
            await response.write(f"id: {index}\nevent: recorded\ndata: {data}\n\n".encode())
        return response

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path, body = request.path, await request.read()
        if path == "/v1/events":
            return await self._stream(request)
        found = self._find(request, path, body)
        if found is None:
            problem = {"type": "", "title": "?", "status": 404, "code": "not_found", "params": {}}
            return web.json_response(problem, status=404)
        if isinstance(found, web.Response):
            return found
        raw = found if isinstance(found, bytes) else msgspec.json.encode(found)
        if path == "/v1/entries" and self.drops:
            self.drops -= 1
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        lie = self.lies.get(path)
        return web.Response(body=lie(raw) if lie else raw, content_type="application/octet-stream")

    def _find(self, request: web.Request, path: str, body: bytes) -> Any:  # noqa: PLR0912
        if path in self.reads:
            return self.reads[path](request)
        match path.strip("/").split("/"):
            case ["v1", "ledger"]:
                return self._ledger()
            case ["v1", "entries"]:
                self.posts.append(body)
                return self._post(body)
            case ["v1", "consistency"]:
                return self._consistency(int(request.query["old"]), int(request.query["new"]))
            case ["v1", "records", index, "proof"]:
                if request.method == "POST" or request.query.get("cosigned") != "no":
                    return self._witnessed(int(index))
                return self.proof(int(index))
            case ["v1", "witnessed"]:
                return TlogProof.parse(found).checkpoint if isinstance(found := self._witnessed(0), bytes) else found
            case ["v1", "forks", name]:
                return self.forks.get(name)
            case ["v1", "records", index]:
                return self._record(int(index))
            case ["v1", "records"]:
                items = [self._item(index) for index in range(len(self.kit.records))]
                return {"items": items, "next": None, "index": len(items)}
            case ["v1", "sessions", "challenge"]:
                return {"challenge": os.urandom(32).hex(), "expires_at_ms": self.kit.now + 60_000}
            case ["v1", "sessions"]:
                return self._session(msgspec.json.decode(body) if body else None)
            case ["v1", "me"]:
                return self._me(request)
            case ["v1", "proofs"]:
                return self._prove(msgspec.json.decode(body))
            case ["log", "checkpoint"]:
                return self.checkpoint().encode()
            case ["log", "tile", *_]:
                return self._tile(path.removeprefix("/log/"))
        return None

    def _ledger(self) -> dict[str, Any]:
        state = self.kit.state
        profile = state.coop.founded
        return {
            "ledger": profile.ledger.hex(),
            "name": profile.name,
            "domain": profile.domain,
            "origin": profile.origin,
            "size": state.size,
            "rules": profile.rules,
            "statutes_version": profile.statutes_version,
            "mode": "writing",
            "reason": None,
            "units": [{"code": one.code, "kind": one.kind, "scale": one.scale} for one in profile.units],
            "node_keys": {},
            "log_vkey": self.signer.verifier.vkey,
            "cosigner_vkey": None,
            "forks": [*self.forks],
            "checkpoint": self.checkpoint(),
            "time_ms": self.kit.now,
        }

    def _post(self, body: bytes) -> bytes:
        entries = ENTRIES.decode(body)
        start = len(self.kit.records)
        outcomes = [self._record_entry(entry) for entry in entries]
        fresh = len(self.kit.records) - start
        hashes = self.tree().range_proof(start, start + fresh) if fresh else ()
        return REPLY.encode(Reply(tuple(outcomes), start if fresh else None, hashes, self.checkpoint()))

    def _record_entry(self, entry: Entry) -> Outcome:
        for index, raw in enumerate(self.kit.records):
            record = decode_record(raw)
            if record.body == entry.body:
                return RecordedBefore(index, record.received_at_ms, self.tree().inclusion_proof(index))
        try:
            result = self.kit.submit(entry)
        except RemoteProtocolError as error:
            return Refused(error.code, ())
        if isinstance(result, Reason):
            return Refused(result.code, result.params)
        self.attachments[len(self.kit.records) - 1] = entry.attachments
        return Recorded(len(self.kit.records) - 1, self.kit.now)

    def _consistency(self, old: int, new: int) -> Any:
        if not old <= new <= len(self.kit.records):
            return _problem(400, "request_malformed")
        hashes = consistency_proof(Tiles(self.leaves), old, new)
        root = GroupTree(Frontier.empty(), self.leaves[:old]).root if old else EMPTY_ROOT
        return {"old": old, "new": new, "root": root.hex(), "hashes": [one.hex() for one in hashes]}

    def _item(self, index: int) -> dict[str, Any]:
        record = decode_record(self.kit.records[index])
        body = BODY.decode(record.body)
        return {
            "index": index,
            "entry_id": body.id.hex(),
            "received_at_ms": record.received_at_ms,
            "type": body.type,
            "author": body.author.hex() if body.author else None,
            "visibility": "public",
            "parties": [],
        }

    def _record(self, index: int) -> Any:
        if index >= len(self.kit.records):
            return None
        attachments = [
            {"class": one.class_name, "salt": one.salt.hex(), "content": one.content.hex()}
            for one in self.attachments.get(index, ())
        ]
        return self._item(index) | {"record": self.kit.records[index].hex(), "attachments": attachments}

    def _session(self, body: dict[str, str] | None) -> Any:
        if body is None:
            return b""
        key = self.kit.state.coop.keys.get(bytes.fromhex(body["key_id"]))
        message = b"ecot/session/v1\n" + (self.kit.state.ledger or b"") + bytes.fromhex(body["challenge"])
        if key is None or key.revoked_at_ms is not None or key.purpose != "daily":
            return _problem(401, "challenge_refused")
        if not is_signature_valid(key.public_key, message, bytes.fromhex(body["signature"])):
            return _problem(401, "challenge_refused")
        token = os.urandom(32).hex()
        self.tokens[token] = key_id(key.public_key)
        return {"token": token, "expires_at_ms": self.kit.now + 3_600_000, **self._who(key.person)}

    def _who(self, person: bytes) -> dict[str, Any]:
        state = self.kit.state
        members = [
            {
                "member": member.hex(),
                "handle": state.membership.members[member].handle,
                "status": state.membership.members[member].status,
                "scopes": list(mandate.scopes),
            }
            for member, mandates in state.membership.mandates.items()
            for mandate in mandates
            if mandate.person == person
        ]
        offices = sorted(name for name, office in state.coop.offices.items() if person in office.persons)
        return {"person": person.hex(), "members": members, "offices": offices}

    def _me(self, request: web.Request) -> Any:
        used = self.tokens.get(request.headers.get("Authorization", "").removeprefix("Bearer "))
        if used is None:
            return _problem(401, "session_ended")
        state = self.kit.state
        person = state.coop.keys[used].person
        keys = [
            {"key_id": one.hex(), "purpose": state.coop.keys[one].purpose} for one in state.coop.person_keys[person]
        ]
        who = self._who(person)
        return who | {"handle": state.coop.persons[person].handle, "key_id": used.hex(), "keys": keys}

    def _prove(self, body: dict[str, Any]) -> Any:
        proofs = []
        for row in body["rows"]:
            value, siblings = self._proofs.get((row["table"], bytes.fromhex(row["key"])), (None, ()))
            shown = {
                "value": value.hex() if value else None,
                "siblings": [one.hex() for one in siblings],
                "seal_index": self.sealed_at,
            }
            proofs.append(row | shown)
        record = self.kit.records[self.sealed_at].hex()
        return {"proofs": proofs, "seal": record, "seal_proof": self.proof(self.sealed_at).decode()}

    def _tile(self, path: str) -> Any:
        tile = parse_tile_path(path)
        if not tile.is_in(len(self.kit.records)):
            return None
        if tile.level is None:
            first = tile.index * 256
            return encode_bundle([leaf_data(one) for one in self.kit.records[first : first + tile.width]])
        return Tiles(self.leaves).tile(tile.level, tile.index, tile.width)


def _problem(status: int, code: str) -> web.Response:
    return web.json_response({"type": "", "title": code, "status": status, "code": code, "params": {}}, status=status)
