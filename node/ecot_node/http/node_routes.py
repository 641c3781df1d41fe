# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a node says about itself: the ledger, its health, its metrics, the description of its interface."""

from importlib import resources
from typing import Annotated, Final, Literal

import msgspec

from ecot_node.http.errors import RETRY_LATER_S, Problem
from ecot_node.http.fields import Count, HashHex, JsonReply, Params, TimeMs, UnitCode
from ecot_node.http.limits import is_client_within
from ecot_node.http.metrics import CONTENT_TYPE as METRICS_CONTENT_TYPE
from ecot_node.http.routes import AnyRoute, Content, Media, Request, Route
from ecot_protocol.domains.coop.state import Profile
from ecot_protocol.state import State
from ecot_protocol.wire.keys import ED25519
from ecot_protocol.wire.note_key import vkey

PublicKeyHex = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{66}$", min_length=66, max_length=66)]

CSP_DOCS: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_STATIC: Final = resources.files("ecot_node.http").joinpath("static")
_DOCS_FILES: Final = {
    "docs.html": "text/html; charset=utf-8",
    "docs.css": "text/css; charset=utf-8",
    "docs.js": "text/javascript; charset=utf-8",
}


class UnitReply(JsonReply):
    """A unit of account; `scale` is its number of decimals."""

    code: UnitCode
    kind: Literal["barter", "currency", "hours"]
    scale: Annotated[int, msgspec.Meta(ge=0, le=6)]


class NodeKeysReply(JsonReply):
    """The node's public keys (algorithm byte and key), each for one use; None before the genesis.

    `cosigner_ml_dsa_44` is None too where the node has no such key.
    """

    agent: PublicKeyHex | None
    cosigner: PublicKeyHex | None
    cosigner_ml_dsa_44: Annotated[str, msgspec.Meta(pattern=r"^03[0-9a-f]{2624}$", max_length=2_626)] | None
    host: PublicKeyHex | None
    log: PublicKeyHex | None


class LedgerReply(JsonReply):
    """The ledger of this node. Before the genesis, what only a genesis says is None.

    Attributes:
        ledger: id.
        name: of the cooperative.
        domain: at genesis.
        origin: of the log, for ever.
        size: durable records.
        rules: number in force.
        statutes_version: newest.
        mode: ``writing``, ``read_only``, ``stopped`` or ``draft`` (no genesis yet).
        reason: why it is not writing, a stable code.
        witness_checkpoint: with the reason ``witness_ahead``, the checkpoint of this log that a partner keeps and that
            the log does not hold: compare it with `checkpoint`; empty otherwise.
        units: of account.
        node_keys: public halves.
        node_keys_index: of the record that last set one of them; 0 for those of the genesis.
        log_vkey: C2SP verifier key of the log.
        cosigner_vkey: of this node as a witness.
        cosigner_vkeys: all of them: that one, and an ML-DSA-44 one if the node has it.
        forks: ids of the proofs that a log forked which this node keeps; each is at ``/v1/forks/{id}``.
        checkpoint: the newest, a signed note; empty before the genesis.
        time_ms: the node's clock.
    """

    ledger: HashHex | None
    name: str | None
    domain: str | None
    origin: str | None
    size: Count
    rules: Count
    statutes_version: Count | None
    mode: Literal["writing", "read_only", "stopped", "draft"]
    reason: str | None
    witness_checkpoint: str
    units: tuple[UnitReply, ...]
    node_keys: NodeKeysReply
    node_keys_index: Count
    log_vkey: str | None
    cosigner_vkey: str | None
    cosigner_vkeys: tuple[str, ...]
    forks: tuple[HashHex, ...]
    checkpoint: str
    time_ms: TimeMs


class HealthReply(JsonReply):
    """The process answers."""

    status: Literal["ok"]


class ReadyReply(JsonReply):
    """How the ledger is: see `LedgerReply.mode`; `views_size` records show in lists, `waiting` entries wait.

    `checkpoint` is the newest durable one; `witness_checkpoint` as in `LedgerReply`.
    """

    mode: str
    reason: str | None
    size: Count
    views_size: Count
    waiting: Count
    checkpoint: str
    witness_checkpoint: str


class DocsParams(Params):
    """`file` of the viewer."""

    file: Literal["docs.css", "docs.js"]


def _profile_of(state: State) -> tuple[Profile | None, dict[str, str], int, int]:
    keys = {purpose: key.public_key.hex() for purpose, key in state.coop.node_keys.items()}
    return state.coop.profile.get(""), keys, state.coop.node_keys_index, state.rules


async def get_ledger(request: Request[None, None]) -> LedgerReply:
    """Everything a client needs to check what this node says; `checkpoint` is the newest durable one."""
    context = request.context
    status = context.ledger.status()
    profile, keys, keys_index, rules = await context.ledger.read(_profile_of)
    units = profile.units if profile else ()
    return LedgerReply(
        ledger=profile.ledger.hex() if profile else None,
        name=profile.name if profile else None,
        domain=profile.domain if profile else None,
        origin=profile.origin if profile else None,
        size=status.size,
        rules=rules,
        statutes_version=profile.statutes_version if profile else None,
        mode=status.mode,  # type: ignore[arg-type]  # the port names the four
        reason=status.reason,
        witness_checkpoint=status.witness_checkpoint,
        units=tuple(UnitReply(code=one.code, kind=one.kind, scale=one.scale) for one in units),
        node_keys=NodeKeysReply(**{one: keys.get(one) for one in NodeKeysReply.__struct_fields__}),
        node_keys_index=keys_index,
        log_vkey=_log_vkey(profile, keys.get("log")),
        cosigner_vkey=context.cosigners[0].verifier.vkey if context.cosigners else None,
        cosigner_vkeys=tuple(one.verifier.vkey for one in context.cosigners),
        forks=tuple(context.forks.proofs),
        checkpoint=context.ledger.checkpoint().decode(),
        time_ms=context.clock_ms(),
    )


def _log_vkey(profile: Profile | None, public_key: str | None) -> str | None:
    if profile is None or public_key is None or int(public_key[:2], 16) != ED25519:
        return None
    return vkey(profile.origin, bytes.fromhex(public_key)[1:])


async def get_health(_request: Request[None, None]) -> HealthReply:
    """Say that the process answers; nothing is asked of store or ledger."""
    return HealthReply(status="ok")


async def get_ready(request: Request[None, None]) -> ReadyReply:
    """Say how the ledger is; 503 if it is stopped."""
    status = request.context.ledger.status()
    if status.mode == "stopped":
        raise Problem("not_writing", headers={"Retry-After": str(RETRY_LATER_S)}, why=status.reason or "")
    return ReadyReply(
        mode=status.mode,
        reason=status.reason,
        size=status.size,
        views_size=status.views_size,
        waiting=status.waiting,
        checkpoint=request.context.ledger.checkpoint().decode(),
        witness_checkpoint=status.witness_checkpoint,
    )


async def get_metrics(request: Request[None, None]) -> Content:
    """Counts for an operator; answered to the configured networks alone."""
    if not is_client_within(request.client, request.context.settings.metrics_networks):
        raise Problem("not_found")
    return Content(request.services.metrics.render(), METRICS_CONTENT_TYPE)


async def get_openapi(request: Request[None, None]) -> Content:
    """This description; texts of problems in the language asked for."""
    headers = {"Content-Language": request.locale, "Cache-Control": "no-cache", "Vary": "Accept-Language"}
    return Content(request.services.openapi[request.locale], "application/json", headers=headers)


def _static(name: str) -> Content:
    headers = {"Content-Security-Policy": CSP_DOCS, "Cache-Control": "no-cache"}
    return Content(_STATIC.joinpath(name).read_bytes(), _DOCS_FILES[name], headers=headers)


async def get_docs(_request: Request[None, None]) -> Content:
    """A viewer of this description, without anything from another host."""
    return _static("docs.html")


async def get_docs_file(request: Request[DocsParams, None]) -> Content:
    """Style and script of the viewer."""
    return _static(request.params.file)


NODE_ROUTES: Final[tuple[AnyRoute, ...]] = (
    Route(
        method="GET",
        path="/v1/ledger",
        summary="Read what the ledger is",
        tag="node",
        access="public",
        handler=get_ledger,
        response=LedgerReply,
    ),
    Route(
        method="GET",
        path="/healthz",
        summary="Ask whether the process answers",
        tag="node",
        access="public",
        handler=get_health,
        response=HealthReply,
        is_limited=False,
    ),
    Route(
        method="GET",
        path="/readyz",
        summary="Ask whether the ledger can be used",
        tag="node",
        access="public",
        handler=get_ready,
        response=ReadyReply,
        errors=("not_writing",),
        is_limited=False,
    ),
    Route(
        method="GET",
        path="/metrics",
        summary="Read metrics",
        tag="node",
        access="public",
        handler=get_metrics,
        response=Media("text/plain", "Prometheus text format.", is_text=True),
        errors=("not_found",),
        is_limited=False,
    ),
    Route(
        method="GET",
        path="/v1/openapi.json",
        summary="Read this description",
        tag="node",
        access="public",
        handler=get_openapi,
        response=Media("application/json", "OpenAPI 3.1.", is_text=True),
    ),
    Route(
        method="GET",
        path="/docs",
        summary="View this description",
        tag="node",
        access="public",
        handler=get_docs,
        response=Media("text/html", "The viewer.", is_text=True),
    ),
    Route(
        method="GET",
        path="/docs/{file}",
        summary="Read a file of the viewer",
        tag="node",
        access="public",
        handler=get_docs_file,
        params=DocsParams,
        response=Media("*/*", "Style or script.", is_text=True),
    ),
)
