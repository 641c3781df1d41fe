# SPDX-License-Identifier: AGPL-3.0-or-later
"""This node as a witness of its peers' logs (C2SP tlog-witness), over HTTP.

What is cosigned is recorded first: the store's compare-and-swap is durable before a cosignature exists. One checkpoint
of a log at a time, so a slower request never rolls a newer record back.
"""

from collections.abc import Sequence
from typing import Final

import structlog

from ecot_node.http.context import Context
from ecot_node.http.errors import Problem
from ecot_node.http.fields import HashHex, Params
from ecot_node.http.log_routes import TEXT
from ecot_node.http.routes import AnyRoute, Content, Media, Request, Route
from ecot_node.store.port import WitnessState
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.wire.checkpoint import OpenedCheckpoint
from ecot_protocol.wire.cosignature import cosign_with
from ecot_protocol.wire.fork import prove_fork
from ecot_protocol.wire.note import NoteSignature, SignedNote, format_signatures
from ecot_protocol.wire.note_key import NoteVerifier
from ecot_protocol.wire.witness import MAX_REQUEST_BYTES, SIZE_CONTENT_TYPE, AddCheckpointRequest, Refusal, decide

log = structlog.get_logger("ecot.witness")


class OriginParams(Params):
    """`origin_hash`: SHA-256 of the log's origin."""

    origin_hash: HashHex


def _require_cosigners(context: Context) -> None:
    if not context.cosigners:
        raise Problem("not_found")


def _cosign(context: Context, text: str) -> tuple[NoteSignature, ...]:
    """Cosign with every key that the node has; who does not know one of them ignores its line."""
    now_unix_s = context.clock_ms() // 1000
    return cosign_with(context.cosigners, text, now_unix_s)


async def add_checkpoint(request: Request[None, bytes]) -> Content:
    """Cosign a checkpoint of a peer's log that extends what was cosigned before.

    Answers cosignature lines, one for each of the node's cosigner keys, or 400, 403, 404, 409 (`text/x.tlog.size`) or
    422 as tlog-witness says.
    """
    context = request.context
    _require_cosigners(context)
    try:
        asked = AddCheckpointRequest.parse(request.body)
    except RemoteProtocolError as error:
        raise Problem("request_malformed", str(error)) from None
    log_keys = await context.peers.log_keys(asked.checkpoint.origin)
    if not log_keys:
        return _refuse(Refusal("origin_unknown", 404, b"origin_unknown\n"))
    async with request.services.locks.of(f"witness {asked.checkpoint.origin}"):
        known = await context.store.witness_get(asked.checkpoint.origin)
        decision = decide((known.size, known.root) if known else None, asked, log_keys)
        if isinstance(decision, Refusal):
            if decision.is_fork_proof and known is not None:
                await _keep_fork(context, known, asked, log_keys)
            return _refuse(decision)
        await _record(context, known, decision, asked)
    return Content(format_signatures(_cosign(context, asked.note.text)), TEXT)


def _refuse(refusal: Refusal) -> Content:
    return Content(refusal.body, refusal.content_type, status=refusal.status)


async def _record(
    context: Context, known: WitnessState | None, decision: OpenedCheckpoint, asked: AddCheckpointRequest
) -> None:
    head = decision.checkpoint
    own_lines = tuple(signature for _, signature in decision.note.verified)  # others' lines are not ours to keep
    state = WitnessState(head.size, head.root_hash, SignedNote(asked.note.text, own_lines).format())
    old_size = known.size if known is not None else None
    if not await context.store.witness_put(head.origin, old_size=old_size, state=state):
        raise Problem("overloaded", "another process took this log meanwhile", headers={"Retry-After": "1"})


async def _keep_fork(
    context: Context, known: WitnessState, asked: AddCheckpointRequest, log_keys: Sequence[NoteVerifier]
) -> None:
    origin = asked.checkpoint.origin
    for key in log_keys:
        try:
            proof = prove_fork(SignedNote.parse(known.note), asked.note, key, b"")
        except RemoteProtocolError as error:  # one was signed with a key that was replaced since
            log.error("fork_not_provable", origin=origin, code=error.code)
            continue
        if await context.forks.keep(proof.format()):
            log.error("log_forked", origin=origin, size=asked.checkpoint.size)
        return


async def get_witnessed(request: Request[OriginParams, None]) -> Content:
    """Read the newest checkpoint of a peer's log that this node cosigned, with its cosignatures."""
    _require_cosigners(request.context)
    origin = await request.context.peers.origin_of(bytes.fromhex(request.params.origin_hash))
    known = await request.context.store.witness_get(origin) if origin is not None else None
    if known is None:
        raise Problem("not_found")
    note = SignedNote.parse(known.note)
    lines = _cosign(request.context, note.text)
    return Content(note.with_signatures(lines).format(), TEXT, headers={"Cache-Control": "no-cache"})


_WHY: Final = Media("text/plain", "Why it is not cosigned, a code.", is_text=True)

WITNESS_ROUTES: Final[tuple[AnyRoute, ...]] = (
    Route(
        method="POST",
        path="/witness/add-checkpoint",
        summary="Have a checkpoint cosigned",
        tag="witness",
        access="public",
        handler=add_checkpoint,
        body=Media("*/*", "tlog-witness add-checkpoint.", max_size_bytes=MAX_REQUEST_BYTES, is_text=True),
        response=Media("text/plain", "Cosignature lines.", is_text=True),
        errors=("not_found", "overloaded", "store_unavailable"),
        also=(
            (400, _WHY),
            (403, _WHY),
            (404, _WHY),
            (409, Media(SIZE_CONTENT_TYPE, "The size that was cosigned last.", is_text=True)),
            (422, _WHY),
        ),
    ),
    Route(
        method="GET",
        path="/witness/{origin_hash}/checkpoint",
        summary="Read the newest checkpoint that this node cosigned",
        tag="witness",
        access="public",
        handler=get_witnessed,
        params=OriginParams,
        response=Media("text/plain", "A signed note.", is_text=True),
        errors=("not_found",),
    ),
)
