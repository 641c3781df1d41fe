# SPDX-License-Identifier: AGPL-3.0-or-later
"""``POST /v1/proofs``: rows of the state that are the caller's own, proven against a recorded seal.

A row is the caller's if its key, or a field of its value, is one of the caller's ids (person, members, offices); for
officers the cooperative's id too.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Final

import msgspec

from ecot_node.http.callers import Caller
from ecot_node.http.errors import Problem
from ecot_node.http.fields import BytesHex, Count, HashHex, JsonBody, JsonReply
from ecot_node.http.routes import AnyRoute, Request, Route
from ecot_node.http.tree import prove_record, published
from ecot_node.ledger.port import StateProof
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.state import State

MAX_ROWS: Final = 100


class RowBody(JsonBody):
    """A row: its table, and the canonical bytes of its key."""

    table: Annotated[str, msgspec.Meta(pattern=r"^[a-z_]{1,32}\.[a-z_]{1,32}$", max_length=65)]
    key: Annotated[str, msgspec.Meta(pattern=r"^(?:[0-9a-f]{2})+$", max_length=1_024)]


class ProofsBody(JsonBody):
    """Rows to prove."""

    rows: Annotated[tuple[RowBody, ...], msgspec.Meta(min_length=1, max_length=MAX_ROWS)]


class StateProofReply(JsonReply):
    """A row and its path to the seal's digest; `value` is None if there is no such row."""

    table: str
    key: BytesHex
    value: BytesHex | None
    siblings: tuple[HashHex, ...]
    seal_index: Count


class ProofsReply(JsonReply):
    """Proofs, the bytes of the seal's record, and the `.tlog-proof` of that record in the node's newest checkpoint."""

    proofs: tuple[StateProofReply, ...]
    seal: BytesHex
    seal_proof: str


def _ids(value: Any) -> Iterator[bytes]:
    """Yield the ids in a key, or in the fields of a value (not deeper: a list of others' names owns nothing)."""
    if isinstance(value, bytes):
        yield value
    elif isinstance(value, tuple):
        yield from (one for one in value if isinstance(one, bytes))
    elif isinstance(value, msgspec.Struct):
        yield from (one for one in msgspec.structs.astuple(value) if isinstance(one, bytes))


def _require_own(state: State, caller: Caller, row: RowBody) -> tuple[str, bytes]:
    table = state.find_table(row.table)
    if table is None:
        raise Problem("not_allowed", "no such table")
    raw = bytes.fromhex(row.key)
    try:
        key = table.decode_key(raw)
    except RemoteProtocolError as error:
        raise Problem("request_malformed", error.detail, field="key") from None
    if caller.party_ids.isdisjoint((*_ids(key), *_ids(table.get(key)))):
        raise Problem("not_allowed")
    return row.table, raw


def _reply(proof: StateProof) -> StateProofReply:
    return StateProofReply(
        table=proof.table,
        key=proof.key.hex(),
        value=None if proof.value is None else proof.value.hex(),
        siblings=tuple(one.hex() for one in proof.siblings),
        seal_index=proof.seal_index,
    )


async def post_proofs(request: Request[None, ProofsBody]) -> ProofsReply:
    """Prove rows of the state that are the caller's own: a balance, a limit, a mandate."""
    caller, context = request.signed_in, request.context
    request.services.take(request.services.proofs, caller.person)
    rows = await context.ledger.read(lambda state: [_require_own(state, caller, row) for row in request.body.rows])
    proofs = await context.ledger.prove(rows)
    seal_index = proofs[0].seal_index
    row = await context.store.record(seal_index)
    assert row is not None, f"the store lacks the seal {seal_index}"
    seal_proof = await prove_record(context, seal_index, published(context))
    return ProofsReply(
        proofs=tuple(map(_reply, proofs)),
        seal=row.record.hex(),
        seal_proof=seal_proof.decode(),
    )


PROOF_ROUTES: Final[tuple[AnyRoute, ...]] = (
    Route(
        method="POST",
        path="/v1/proofs",
        summary="Prove rows of the state",
        tag="records",
        handler=post_proofs,
        body=ProofsBody,
        response=ProofsReply,
        errors=("not_allowed", "not_writing", "overloaded"),
    ),
)
