# SPDX-License-Identifier: AGPL-3.0-or-later
"""``POST /v1/entries``: the only way to write. The hottest path: one decode, one submit, one encode.

An entry that is malformed by itself is refused by itself; only where the array as a whole does not decode is each
entry looked at alone.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from ecot_node.http.errors import Problem
from ecot_node.http.port import HttpLedger
from ecot_node.http.routes import AnyRoute, Content, Media, Request, Route
from ecot_node.http.services import Lease, Services
from ecot_node.ledger.port import Ledger
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.wire.entry import ENTRIES, MAX_ENTRIES_PER_BATCH, MAX_ENTRY_SIZE_BYTES, Entry, decode_entry
from ecot_protocol.wire.reply import REPLY, Outcome, Refused, Reply

PATH: Final = "/v1/entries"
MSGPACK: Final = "application/msgpack"
MAX_BODY_BYTES: Final = 16 * 1024 * 1024
MAX_DETAIL_CHARACTERS: Final = 200
_RAW_ENTRIES: Final = msgspec.msgpack.Decoder(tuple[msgspec.Raw, ...])


async def post_entries(request: Request[None, bytes]) -> Content:
    """Record 1 to 1,000 entries, each on its own, in order; the reply comes when their outcomes are durable.

    The request is a canonical msgpack array of entries, the reply is that of the specification of the wire. Sending the
    same entries again is always safe.
    """
    ledger, services = request.context.ledger, request.services
    return Content(await record_entries(ledger, services, request.client, request.body), MSGPACK)


async def record_entries(ledger: HttpLedger, services: Services, client: str, raw: bytes) -> bytes:
    """Record the entries of a body within the client's limits; return the encoded reply.

    Raises:
        Problem: ``entries_malformed``, ``body_too_large``, ``rate_limited``, ``overloaded``.
        Overloaded, NotWriting: nothing was taken.
    """
    batch = read_batch(raw)
    services.take(services.entries, client, sum(map(_cost, batch)))
    # Anybody may apply, and so many applications may wait: without a limit one machine could take all their places.
    strangers = {_signer_of(one) for one in batch if isinstance(one, Entry) and not ledger.is_known(one)}
    if strangers:
        services.take(services.strangers, client, len(strangers))
    waiting = Lease(services.waiting, client)
    try:
        waiting.take(len(batch))
        return REPLY.encode(await submit(ledger, batch))
    finally:
        waiting.end()


def read_batch(raw: bytes) -> Sequence[Entry | Refused]:
    """Decode a batch; what is malformed by itself stands as its refusal.

    Raises:
        Problem: ``entries_malformed``, ``body_too_large``.
    """
    try:
        entries = ENTRIES.decode(raw)
    except RemoteProtocolError:
        return [_decode(one) for one in _split(raw)]
    _require_count(len(entries))
    # Only a body above the limit of one entry can hold an entry above it.
    return entries if len(raw) <= MAX_ENTRY_SIZE_BYTES else [_decode(one) for one in _split(raw)]


def _cost(one: Entry | Refused) -> int:
    """Return how much an entry counts: what it costs the node is to check its signatures, wrong ones too."""
    return len(one.signatures) if isinstance(one, Entry) and len(one.signatures) > 1 else 1


def _signer_of(entry: Entry) -> bytes:
    """Return the first key of an entry; entries without one are of one stranger."""
    return entry.signatures[0].key_id if entry.signatures else b""


def _require_count(count: int) -> None:
    if count == 0:
        raise Problem("entries_malformed", "expected at least one entry")
    if count > MAX_ENTRIES_PER_BATCH:
        raise Problem("body_too_large", f"at most {MAX_ENTRIES_PER_BATCH} entries", limit_entries=MAX_ENTRIES_PER_BATCH)


async def submit(ledger: Ledger, batch: Sequence[Entry | Refused]) -> Reply:
    """Submit the entries of a batch and put the refusals into their places.

    Raises:
        Overloaded, NotWriting: nothing was taken.
    """
    entries = [one for one in batch if isinstance(one, Entry)]
    if not entries:
        return Reply(tuple(one for one in batch if isinstance(one, Refused)), None, (), ledger.checkpoint().decode())
    reply = await ledger.submit(entries)
    if len(entries) == len(batch):
        return reply
    return msgspec.structs.replace(reply, outcomes=_merge(batch, reply.outcomes))


def _split(raw: bytes) -> Sequence[msgspec.Raw]:
    try:
        parts = _RAW_ENTRIES.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem("entries_malformed", str(error)) from None
    _require_count(len(parts))
    if msgspec.msgpack.encode(parts) != raw:
        raise Problem("entries_malformed", "the array is not canonical")
    return parts


def _decode(raw: msgspec.Raw) -> Entry | Refused:
    try:
        return decode_entry(bytes(raw))
    except RemoteProtocolError as error:
        return Refused(error.code, (("detail", error.detail[:MAX_DETAIL_CHARACTERS]),) if error.detail else ())


def _merge(read: Sequence[Entry | Refused], outcomes: Sequence[Outcome]) -> tuple[Outcome, ...]:
    following = iter(outcomes)
    return tuple(one if isinstance(one, Refused) else next(following) for one in read)


ENTRY_ROUTES: Final[tuple[AnyRoute, ...]] = (
    Route(
        method="POST",
        path=PATH,
        summary="Record entries",
        tag="entries",
        access="public",
        handler=post_entries,
        body=Media(MSGPACK, "Canonical array of 1 to 1,000 entries.", max_size_bytes=MAX_BODY_BYTES),
        response=Media(MSGPACK, "An outcome for each entry, and one proof."),
        errors=("entries_malformed", "overloaded", "not_writing"),
    ),
)
