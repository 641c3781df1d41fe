# SPDX-License-Identifier: AGPL-3.0-or-later
"""Records and what proves that they are in the log."""

from typing import Annotated, Final, Literal

import msgspec

from ecot_node.http.callers import Caller, may_read, may_read_attachment
from ecot_node.http.errors import Problem
from ecot_node.http.fields import (
    BytesHex,
    Count,
    HashHex,
    IdHex,
    JsonReply,
    Listing,
    Page,
    Params,
    Tag,
    TimeMs,
    Waiting,
    parse_hex,
    show_hex,
)
from ecot_node.http.log_routes import TEXT
from ecot_node.http.paging import decode_cursor, encode_cursor
from ecot_node.http.port import RecordedMeta
from ecot_node.http.routes import AnyRoute, Content, Media, Request, Route
from ecot_node.http.tree import cosigned, cosigned_for, prove_growth, prove_record, published
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.wire.policy import Policy, parse_policy

VIEWS_WAIT_S: Final = 10.0
BEGINNING: Final = -1
MAX_POLICY_BYTES: Final = 65_536


class RecordParams(Waiting, kw_only=True):
    """`index` of the record."""

    index: Count


class RecordsParams(Page, kw_only=True):
    """Only records above `after`, of one `type`, of one `author`."""

    after: Annotated[int, msgspec.Meta(ge=BEGINNING, le=2**53 - 1)] = BEGINNING
    type: Tag | None = None
    author: IdHex | None = None


class IndexParams(Params):
    """`index` of the record."""

    index: Count


class ProofParams(Params, kw_only=True):
    """`cosigned`: ``yes`` for the newest checkpoint that a witness cosigned, ``no`` for the node's own newest."""

    index: Count
    cosigned: Literal["yes", "no"] = "yes"


class ConsistencyParams(Params):
    """Two sizes of the log."""

    old: Count
    new: Count


class RecordItem(JsonReply):
    """A record in a list. `visibility`: ``public``, ``members``, ``parties`` or ``auditors``.

    `parties`: whom it concerns; of a record between parties, a party is told its own ids alone.
    """

    index: Count
    entry_id: IdHex
    received_at_ms: TimeMs
    type: Tag
    author: IdHex | None
    visibility: str
    parties: tuple[IdHex, ...]


class AttachmentReply(JsonReply):
    """An attachment that the reader may see and that was not erased; `class_name` is the first of the wire's three."""

    class_name: str = msgspec.field(name="class")
    salt: HashHex
    content: BytesHex


class RecordReply(RecordItem, kw_only=True):
    """A record with its bytes: what was hashed into the log."""

    record: BytesHex
    attachments: tuple[AttachmentReply, ...]


class ConsistencyReply(JsonReply):
    """RFC 6962 consistency proof between two sizes, and the root of our log at the old one, from which it leads.

    Somebody who knows another root that our log signed at the old size has proof that it forked.
    """

    old: Count
    new: Count
    root: HashHex
    hashes: tuple[HashHex, ...]


def _item(meta: RecordedMeta, caller: Caller | None) -> RecordItem:
    return RecordItem(
        index=meta.index,
        entry_id=meta.entry_id.hex(),
        received_at_ms=meta.received_at_ms,
        type=meta.type,
        author=show_hex(meta.author),
        visibility=meta.visibility,
        parties=tuple(one.hex() for one in _shown_parties(meta, caller)),
    )


def _shown_parties(meta: RecordedMeta, caller: Caller | None) -> tuple[bytes, ...]:
    """Return the parties that the reader may be told: one record may resolve the deals of members who share nothing."""
    if meta.visibility != "parties" or caller is None or caller.is_officer:
        return meta.parties
    return tuple(one for one in meta.parties if one in caller.party_ids)


async def _find(request: Request[RecordParams, None]) -> RecordedMeta:
    """Return what the views know of the record, waiting until they show it.

    Raises:
        Problem: ``not_found``: there is none, or the caller may not read it (the two look alike on purpose).
    """
    index, context = request.params.index, request.context
    if index >= context.ledger.status().size:
        raise Problem("not_found")
    meta = await context.records.entry(index)
    if meta is None and await context.ledger.wait_for(index, VIEWS_WAIT_S):
        meta = await context.records.entry(index)
    if meta is None:
        raise Problem("answer_timeout", "the views don't show this record yet", headers={"Retry-After": "1"})
    if not may_read(request.caller, meta.visibility, meta.parties):
        raise Problem("not_found")
    return meta


async def get_record(request: Request[RecordParams, None]) -> RecordReply:
    """Read a record and those of its attachments that are for the reader.

    A record that the reader may not see is answered like one that is not there.
    """
    meta = await _find(request)
    row = await request.context.store.record(meta.index)
    assert row is not None, f"the store lacks record {meta.index}"
    attachments = tuple(
        AttachmentReply(class_name=one.class_name, salt=one.salt.hex(), content=one.content.hex())
        for one in await request.context.store.attachments(meta.index)
        if may_read_attachment(request.caller, one.class_name, meta.parties)
    )
    item = msgspec.structs.asdict(_item(meta, request.caller))
    return RecordReply(**item, record=row.record.hex(), attachments=attachments)


async def list_records(request: Request[RecordsParams, None]) -> Listing[RecordItem]:
    """List the records that the caller may read, in the order of the log."""
    params, context = request.params, request.context
    shown = context.ledger.status().views_size
    position = decode_cursor(params.cursor, tuple[int])
    after = max(params.after, position[0]) if position else params.after
    found = await context.records.visible(
        request.caller, after=after, limit=params.limit + 1, tag=params.type, author=parse_hex(params.author)
    )
    page = found[: params.limit]
    items = tuple(
        _item(one, request.caller)
        for one in page
        if may_read(request.caller, one.visibility, one.parties)  # again here: one mistake in a query shows nothing
    )
    following = encode_cursor(page[-1].index) if len(found) > params.limit else None
    return Listing(items=items, next=following, index=shown)


async def get_proof(request: Request[ProofParams, None]) -> Content:
    """Read a `.tlog-proof` of a record: anybody can check it offline. It holds hashes only."""
    index, context = request.params.index, request.context
    head = published(context)
    if index >= head.size:
        raise Problem("record_unknown", index=index)
    if request.params.cosigned == "yes":
        head = await cosigned(context, index)
    return Content(await prove_record(context, index, head), TEXT)


def _policy(raw: bytes) -> Policy:
    try:
        return parse_policy(raw)
    except RemoteProtocolError as error:
        raise Problem("request_malformed", error.detail, field="policy") from None


async def post_proof(request: Request[IndexParams, bytes]) -> Content:
    """Read a `.tlog-proof` of a record under a checkpoint that a policy (C2SP tlog-policy) is content with.

    The checkpoint is the newest such one, and bears the cosignatures of the policy's witnesses and no others.
    """
    index, context = request.params.index, request.context
    if index >= published(context).size:
        raise Problem("record_unknown", index=index)
    head = await cosigned_for(context, _policy(request.body), index)
    return Content(await prove_record(context, index, head), TEXT)


async def post_witnessed(request: Request[None, bytes]) -> Content:
    """Read the newest checkpoint that a policy (C2SP tlog-policy) is content with: what it shows is witnessed."""
    head = await cosigned_for(request.context, _policy(request.body), 0)
    return Content(head.note, TEXT)


async def get_consistency(request: Request[ConsistencyParams, None]) -> ConsistencyReply:
    """Read the proof that the log of `new` records extends that of `old`."""
    old, new = request.params.old, request.params.new
    if not old <= new <= published(request.context).size:
        raise Problem("request_malformed", "expected old <= new <= size of the log", field="new")
    root, hashes = await prove_growth(request.context, old, new)
    return ConsistencyReply(old=old, new=new, root=root.hex(), hashes=tuple(one.hex() for one in hashes))


RECORD_ROUTES: Final[tuple[AnyRoute, ...]] = (
    Route(
        method="GET",
        path="/v1/records",
        summary="List records",
        tag="records",
        access="public",
        handler=list_records,
        params=RecordsParams,
        response=Listing[RecordItem],
        errors=("cursor_malformed",),
    ),
    Route(
        method="GET",
        path="/v1/records/{index}",
        summary="Read a record",
        tag="records",
        access="public",
        handler=get_record,
        params=RecordParams,
        response=RecordReply,
        errors=("not_found",),
    ),
    Route(
        method="GET",
        path="/v1/records/{index}/proof",
        summary="Read the proof of a record",
        tag="records",
        access="public",
        handler=get_proof,
        params=ProofParams,
        response=Media("text/plain", "C2SP .tlog-proof.", is_text=True),
        errors=("not_found", "record_unknown", "not_witnessed_yet"),
    ),
    Route(
        method="POST",
        path="/v1/records/{index}/proof",
        summary="Read the proof of a record that a policy asks for",
        tag="records",
        access="public",
        handler=post_proof,
        params=IndexParams,
        body=Media("text/plain", "C2SP tlog-policy.", max_size_bytes=MAX_POLICY_BYTES, is_text=True),
        response=Media("text/plain", "C2SP .tlog-proof.", is_text=True),
        errors=("not_found", "record_unknown", "not_witnessed_yet"),
    ),
    Route(
        method="POST",
        path="/v1/witnessed",
        summary="Read the newest checkpoint that a policy is content with",
        tag="records",
        access="public",
        handler=post_witnessed,
        body=Media("text/plain", "C2SP tlog-policy.", max_size_bytes=MAX_POLICY_BYTES, is_text=True),
        response=Media("text/plain", "A signed note.", is_text=True),
        errors=("not_found", "not_witnessed_yet"),
    ),
    Route(
        method="GET",
        path="/v1/consistency",
        summary="Read a consistency proof",
        tag="records",
        access="public",
        handler=get_consistency,
        params=ConsistencyParams,
        response=ConsistencyReply,
        errors=("not_found",),
    ),
)
