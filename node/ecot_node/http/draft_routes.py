# SPDX-License-Identifier: AGPL-3.0-or-later
"""``/v1/drafts``: seen by their possible signers only."""

from collections.abc import Iterable
from typing import Annotated, Final, Literal

import msgspec

from ecot_node.http import drafts
from ecot_node.http.drafts import Standing
from ecot_node.http.entry_routes import MSGPACK
from ecot_node.http.errors import Problem
from ecot_node.http.fields import (
    BytesHex,
    Count,
    HashHex,
    IdHex,
    JsonBody,
    JsonReply,
    KeyIdHex,
    Listing,
    Page,
    Params,
    SignatureHex,
    Tag,
    TimeMs,
    show_hex,
)
from ecot_node.http.paging import decode_cursor, encode_cursor
from ecot_node.http.routes import AnyRoute, Media, Request, Route
from ecot_node.store.port import DRAFT_MAX_BYTES
from ecot_protocol.ledger.entry_type import Need
from ecot_protocol.state import State
from ecot_protocol.wire.encoding import encode
from ecot_protocol.wire.entry import Signature
from ecot_protocol.wire.reply import Outcome, Recorded, RecordedBefore, Refused

SCANNED_PER_PAGE: Final = 200
"""Drafts looked at for one page: it may come out short, and yet have a next one."""
BATCH: Final = 50
DRAFT_UNIT_BYTES: Final = 16 * 1024
"""A larger draft counts as several against the rate of drafts: they are kept for up to 31 days."""


class DraftParams(Params):
    """`hash`: SHA-256 of the body."""

    hash: HashHex


class SignatureBody(JsonBody):
    r"""A signature over ``"ecot/entry/v1\n"`` + body."""

    key_id: KeyIdHex
    signature: SignatureHex


class NeedReply(JsonReply):
    """At least `threshold` of these must sign: persons by id; keys that the entry itself brings are counted only."""

    threshold: Count
    persons: tuple[IdHex, ...]
    key_count: Count
    signed: tuple[IdHex, ...]
    signed_count: Count


class DraftItem(JsonReply):
    """A draft. `is_signed_by_me`: whether the caller's signature is there."""

    hash: HashHex
    type: Tag
    author: IdHex | None
    expires_at_ms: TimeMs
    needs: tuple[NeedReply, ...]
    is_complete: bool
    is_signed_by_me: bool


class DraftReply(DraftItem):
    """A draft with its entry (msgpack): what is to be read before it is signed."""

    entry: BytesHex


class OutcomeReply(JsonReply):
    """What became of a draft.

    Attributes:
        hash: of the body.
        status: ``waiting`` for signatures, ``recorded``, ``refused`` (it stays, and is tried again with the next
            signature), ``unknown`` (asking again is safe).
        index: of the record.
        received_at_ms: of the record.
        code: why it was refused.
        params: of the code's text.
        missing_count: signatures still needed.
    """

    hash: HashHex
    status: Literal["waiting", "recorded", "refused", "unknown"]
    index: Count | None = None
    received_at_ms: TimeMs | None = None
    code: str | None = None
    params: Annotated[dict[str, int | str], msgspec.Meta(description="Ids, amounts, times.")] = msgspec.field(
        default_factory=dict
    )
    missing_count: Count = 0


def _missing(standing: Standing) -> int:
    return sum(need.threshold - len(need.principals & standing.present) for need in standing.open_needs)


def _outcome(standing: Standing, outcome: Outcome | None) -> OutcomeReply:
    draft_id = standing.draft_id.hex()
    match outcome:
        case None:
            return OutcomeReply(hash=draft_id, status="waiting", missing_count=_missing(standing))
        case Recorded() | RecordedBefore():
            return OutcomeReply(
                hash=draft_id, status="recorded", index=outcome.index, received_at_ms=outcome.received_at_ms
            )
        case Refused():
            return OutcomeReply(hash=draft_id, status="refused", code=outcome.code, params=dict(outcome.params))
        case _:
            return OutcomeReply(hash=draft_id, status="unknown", code=outcome.code)


def _need(state: State, need: Need, present: Iterable[bytes]) -> NeedReply:
    persons = {one for one in need.principals if one in state.coop.persons}
    signed = need.principals & frozenset(present)
    return NeedReply(
        threshold=need.threshold,
        persons=tuple(sorted(one.hex() for one in persons)),
        key_count=len(need.principals) - len(persons),
        signed=tuple(sorted(one.hex() for one in signed & persons)),
        signed_count=len(signed),
    )


async def _item(request: Request[Page, None] | Request[DraftParams, None], standing: Standing) -> DraftItem:
    body = standing.submission.body
    needs = await request.context.ledger.read(
        lambda state: tuple(_need(state, need, standing.present) for need in standing.rule)
    )
    return DraftItem(
        hash=standing.draft_id.hex(),
        type=body.type,
        author=show_hex(body.author),
        expires_at_ms=body.expires_at,
        needs=needs,
        is_complete=standing.is_complete,
        is_signed_by_me=request.signed_in.person in standing.present,
    )


async def list_drafts(request: Request[Page, None]) -> Listing[DraftItem]:
    """List the drafts that the caller may sign, in no meaningful order. A page may be short and have a next one."""
    context, caller, limit = request.context, request.signed_in, request.params.limit
    position = decode_cursor(request.params.cursor, tuple[bytes])
    after = position[0] if position else b""
    items: list[DraftItem] = []
    scanned = 0
    while len(items) < limit and scanned < SCANNED_PER_PAGE:
        batch = await context.store.draft_list(BATCH, after)
        for draft in batch:
            after, scanned = draft.draft_id, scanned + 1
            standing = await drafts.try_judge(context, draft)
            if standing is not None and standing.is_for(caller):
                items.append(await _item(request, standing))
            if len(items) == limit:
                break
        if len(batch) < BATCH and len(items) < limit:
            return Listing(items=tuple(items), next=None, index=context.ledger.status().size)
    return Listing(items=tuple(items), next=encode_cursor(after), index=context.ledger.status().size)


async def get_draft(request: Request[DraftParams, None]) -> DraftReply:
    """Read a draft that the caller may sign, with its attachments."""
    standing = await drafts.load(request.context, bytes.fromhex(request.params.hash))
    if not standing.is_for(request.signed_in):
        raise Problem("not_found")
    item = await _item(request, standing)
    return DraftReply(**msgspec.structs.asdict(item), entry=encode(standing.submission.entry).hex())


async def post_draft(request: Request[None, bytes]) -> OutcomeReply:
    """Leave an entry, with no or some signatures, for the others to sign. The caller is one who may sign it."""
    context, caller = request.context, request.signed_in
    entry = drafts.read_entry(request.body)
    standing = await drafts.begin(context, entry, caller)
    request.services.take(request.services.drafts, caller.person, 1 + len(request.body) // DRAFT_UNIT_BYTES)
    async with request.services.locks.of(standing.draft_id):
        kept = await context.store.draft_get(standing.draft_id)
        if kept is not None:  # the same draft from another signer: what was signed before stays
            for signature in drafts.read_entry(kept.content).signatures:
                entry = drafts.add_signature(entry, signature)
            standing = await drafts.judge(context, entry)
        await drafts.keep(context, standing)
        return _outcome(standing, await drafts.settle(context, standing))


async def post_signature(request: Request[DraftParams, SignatureBody]) -> OutcomeReply:
    """Add a signature; the node records the entry as soon as enough persons have signed.

    The same signature again only tries again. It needs no session: a good signature of one who must sign is enough.
    """
    context, draft_id = request.context, bytes.fromhex(request.params.hash)
    signature = Signature(bytes.fromhex(request.body.key_id), bytes.fromhex(request.body.signature))
    async with request.services.locks.of(draft_id):
        before = await drafts.load(context, draft_id)
        standing = await drafts.judge(context, drafts.add_signature(before.submission.entry, signature))
        if signature not in standing.submission.entry.signatures:
            raise Problem("draft_refused", "a signature is false or not needed", why="signature_not_needed")
        await drafts.keep(context, standing)
        return _outcome(standing, await drafts.settle(context, standing))


_WRITING: Final = ("not_writing", "overloaded", "store_unavailable")

DRAFT_ROUTES: Final[tuple[AnyRoute, ...]] = (
    Route(
        method="GET",
        path="/v1/drafts",
        summary="List drafts to sign",
        tag="drafts",
        handler=list_drafts,
        params=Page,
        response=Listing[DraftItem],
        errors=("cursor_malformed",),
    ),
    Route(
        method="POST",
        path="/v1/drafts",
        summary="Leave a draft",
        tag="drafts",
        handler=post_draft,
        body=Media(MSGPACK, "An entry, with the signatures so far.", max_size_bytes=DRAFT_MAX_BYTES),
        response=OutcomeReply,
        errors=("not_allowed", "draft_refused", *_WRITING),
    ),
    Route(
        method="GET",
        path="/v1/drafts/{hash}",
        summary="Read a draft",
        tag="drafts",
        handler=get_draft,
        params=DraftParams,
        response=DraftReply,
        errors=("not_found",),
    ),
    Route(
        method="POST",
        path="/v1/drafts/{hash}/signatures",
        summary="Sign a draft",
        tag="drafts",
        access="public",
        handler=post_signature,
        params=DraftParams,
        body=SignatureBody,
        response=OutcomeReply,
        errors=("not_found", "draft_refused", *_WRITING),
    ),
)
