# SPDX-License-Identifier: AGPL-3.0-or-later
"""The node about itself, the public log, proofs, and the shape of every answer."""

import re
from hashlib import sha256
from pathlib import Path

import pytest
from http_kit import HttpNode, http_node, problem_of
from ledger_kit import LedgerKit
from writer_kit import log_key

import ecot_node.http
from ecot_node.http.errors import STATUS
from ecot_node.http.floor import FLOOR_ROUTES
from ecot_protocol.locale import load_catalogue
from ecot_protocol.wire.checkpoint import open_checkpoint
from ecot_protocol.wire.cosignature import Cosigner
from ecot_protocol.wire.entry import leaf_data
from ecot_protocol.wire.merkle import leaf_hash, verify_consistency
from ecot_protocol.wire.policy import parse_policy
from ecot_protocol.wire.proof import TlogProof, verify_proof
from ecot_protocol.wire.tile import decode_bundle


async def test_the_ledger_tells_what_a_client_needs_to_check_it() -> None:
    async with http_node() as node:
        answer = await node.get("/v1/ledger")
        told = await answer.json()
        profile = node.kit.state.coop.founded
        assert told["ledger"] == profile.ledger.hex()
        assert (told["origin"], told["size"], told["mode"]) == (profile.origin, 1, "writing")
        assert told["log_vkey"] == log_key(node.kit).vkey
        assert [unit["code"] for unit in told["units"]] == ["BART", "EUR"]
        opened = open_checkpoint(told["checkpoint"].encode(), [log_key(node.kit)])
        assert opened.checkpoint.size == told["size"]


async def test_before_the_genesis_the_node_answers_and_says_draft() -> None:
    kit = LedgerKit()
    records, kit.records = kit.records, []
    async with http_node(kit) as node:
        told = await (await node.get("/v1/ledger")).json()
        assert (told["ledger"], told["mode"], told["checkpoint"]) == (None, "draft", "")
        assert await problem_of(await node.get("/log/checkpoint"), 404) == "not_found"
        assert await problem_of(await node.get("/v1/records/0/proof"), 404) == "not_found"
        assert (await node.get("/readyz")).status == 200
        kit.records = records
        await node.catch_up()
        assert (await (await node.get("/v1/ledger")).json())["mode"] == "writing"


async def test_a_stopped_ledger_is_alive_and_not_ready() -> None:
    async with http_node() as node:
        node.writer.block("clock_jump")
        assert (await node.get("/healthz")).status == 200
        answer = await node.get("/readyz")
        assert await problem_of(answer, 503) == "not_writing"
        assert int(answer.headers["Retry-After"]) > 0


@pytest.mark.parametrize(("wanted", "title"), [("fr-BE, en;q=0.5", "rien"), ("en", "nothing"), ("de", "nothing")])
async def test_a_problem_speaks_the_callers_language(wanted: str, title: str) -> None:
    async with http_node() as node:
        answer = await node.get("/v1/nowhere", **{"Accept-Language": wanted})
        assert await problem_of(answer, 404) == "not_found"
        assert title in (await answer.json())["title"]


@pytest.mark.parametrize("language", ["en", "fr"])
def test_every_problem_has_a_text(language: str) -> None:
    assert [code for code in STATUS if f"reason.{code}" not in load_catalogue(language)] == []


@pytest.mark.parametrize("path", ["/v1/ledger", "/v1/me", "/v1/nowhere", "/docs", "/log/checkpoint", "/healthz"])
async def test_every_answer_has_the_headers_that_protect_a_reader(path: str) -> None:
    async with http_node() as node:
        headers = (await node.get(path)).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Server"] == "ecot"
        assert re.fullmatch("[0-9a-f]{16}", headers["X-Request-Id"])
        public = ("/docs", "/log/checkpoint")
        assert headers["Cache-Control"] == ("no-cache" if path in public else "no-store")


async def test_a_method_that_is_not_routed_says_which_are() -> None:
    async with http_node() as node:
        answer = await node.client.put("/v1/ledger")
        assert await problem_of(answer, 405) == "method_not_allowed"
        assert set(answer.headers["Allow"].split(",")) == {"GET", "HEAD"}


async def test_metrics_count_by_route_and_hold_no_path() -> None:
    async with http_node() as node:
        await node.get(f"/v1/drafts/{'0' * 64}")
        await node.get("/v1/nowhere")
        text = await (await node.get("/metrics")).text()
        assert 'ecot_http_answers_total{method="GET",route="/v1/drafts/{hash}",status="401"} 1.0' in text
        assert 'route="none",status="404"' in text
        assert "ecot_ledger_records 1.0" in text
        assert "0" * 64 not in text


# --- the public log -----------------------------------------------------------------------------------------------


async def _grow(node: HttpNode, size: int) -> None:
    """Let applicants come until the log has `size` records."""
    for number in range(node.writer.status().size, size):
        node.kit.apply_for(f"m{number}")
    await node.catch_up()


async def test_tiles_and_bundles_give_the_tree_of_the_checkpoint() -> None:
    async with http_node() as node:
        await _grow(node, 300)
        full = await node.get("/log/tile/0/000")
        partial = await node.get("/log/tile/0/001.p/44")
        above = await node.get("/log/tile/1/000.p/1")
        bundle = await node.get("/log/tile/entries/001.p/44")
        assert full.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        leaves = [leaf_data(record) for record in node.kit.records]
        # The writer's records carry its own times; they are the kit's, whose clock it shares.
        assert decode_bundle(await bundle.read(), 44) == tuple(leaves[256:])
        hashes = await full.read() + await partial.read()
        assert [hashes[at : at + 32] for at in range(0, len(hashes), 32)] == [leaf_hash(leaf) for leaf in leaves]
        assert len(await above.read()) == 32
        older = await node.get("/log/tile/0/001.p/17")
        assert await older.read() == (await partial.read())[: 17 * 32]
        once_partial = await node.get("/log/tile/0/000.p/9")
        assert await once_partial.read() == (await full.read())[: 9 * 32]


@pytest.mark.parametrize(
    "tile",
    ["0/000", "0/000.p/2", "0/001.p/1", "1/000.p/1", "entries/000.p/2", "0/0", "0/00", "0/x000/000", "64/000", "-1/000",
     "0/000.p/0", "0/000.p/256", "0/000.p/01", "0/000/", "..%2Fcheckpoint", "0/%00", "entries", "0/٠٠٠"],
)  # fmt: skip
async def test_a_tile_that_the_published_log_has_not_is_not_found(tile: str) -> None:
    async with http_node() as node:
        assert (await node.get(f"/log/tile/{tile}")).status in (400, 404)


async def test_a_record_is_proven_against_the_nodes_own_checkpoint() -> None:
    async with http_node() as node:
        await _grow(node, 270)
        policy = parse_policy(b"quorum none\n")
        for index in (0, 255, 256, 269):
            raw = await (await node.get(f"/v1/records/{index}/proof?cosigned=no")).read()
            opened = verify_proof(leaf_data(node.kit.records[index]), raw, [log_key(node.kit)], policy)
            assert opened.checkpoint.size == 270


async def test_a_proof_is_made_against_the_newest_cosigned_checkpoint_that_covers_the_record() -> None:
    async with http_node() as node:
        await _grow(node, 5)
        assert await problem_of(await node.get("/v1/records/1/proof"), 404) == "not_witnessed_yet"
        note = node.writer.checkpoint()
        cosigner = _witness()
        line = cosigner.cosign(note.decode().partition("\n\n")[0] + "\n", node.kit.now // 1000)
        await node.store.checkpoint_keep(5, note)
        await node.store.cosignatures_put(5, cosigner.verifier.name, line.format().encode())
        await _grow(node, 300)
        raw = await (await node.get("/v1/records/4/proof")).read()
        policy = parse_policy(f"witness w {cosigner.verifier.vkey}\nquorum w\n".encode())
        opened = verify_proof(leaf_data(node.kit.records[4]), raw, [log_key(node.kit)], policy)
        assert (opened.checkpoint.size, TlogProof.parse(raw).index) == (5, 4)
        assert await problem_of(await node.get("/v1/records/5/proof"), 404) == "not_witnessed_yet"
        assert await problem_of(await node.get("/v1/records/300/proof"), 404) == "record_unknown"


def _witness() -> Cosigner:
    return Cosigner("witness.example/w", sha256(b"witness").digest())


async def test_consistency_is_proven_between_any_two_sizes() -> None:
    async with http_node() as node:
        roots = {}
        for size in (1, 3, 258):
            await _grow(node, size)
            roots[size] = open_checkpoint(node.writer.checkpoint(), [log_key(node.kit)]).checkpoint.root_hash
        for old, new in ((1, 3), (3, 258), (1, 258), (258, 258), (0, 3)):
            told = await (await node.get(f"/v1/consistency?old={old}&new={new}")).json()
            hashes = [bytes.fromhex(one) for one in told["hashes"]]
            if old:
                assert verify_consistency(old, roots[old], new, roots[new], hashes)
        for query in ("old=2&new=1", "old=0&new=259", "old=0", "old=-1&new=1", f"old=0&new={2**60}"):
            assert await problem_of(await node.get(f"/v1/consistency?{query}"), 400) == "request_malformed"


# --- the documentation --------------------------------------------------------------------------------------------


async def test_the_description_lists_every_route_with_its_problems() -> None:
    async with http_node() as node:
        described = await (await node.get("/v1/openapi.json", **{"Accept-Language": "fr"})).json()
        assert described["openapi"] == "3.1.0"
        for route in FLOOR_ROUTES:
            path = re.sub(r":[^}]*", "", route.path)
            operation = described["paths"][path][route.method.lower()]
            text = "\n".join(one["description"] for one in operation["responses"].values())
            assert all(f"`{code}`" in text for code in (*route.errors, "rate_limited", "internal"))
            assert operation["summary"] == route.summary
        assert "Trop de demandes" in str(described)


async def test_the_viewer_asks_nothing_of_another_host() -> None:
    async with http_node() as node:
        for path, kind in (
            ("/docs", "text/html"),
            ("/docs/docs.js", "text/javascript"),
            ("/docs/docs.css", "text/css"),
        ):
            answer = await node.get(path)
            assert (answer.status, answer.content_type) == (200, kind)
            text = await answer.text()
            assert not re.search(r"(https?:)?//[a-z]", re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE))
            assert "innerHTML" not in text


def test_every_file_of_the_viewer_is_served() -> None:
    folder = Path(str(ecot_node.http.__file__)).parent / "static"
    assert {one.name for one in folder.iterdir()} == {"docs.html", "docs.css", "docs.js"}


def test_the_specification_names_every_route_and_every_problem() -> None:
    text = (Path(__file__).parents[2] / "docs/specification/http.md").read_text(encoding="utf-8")
    told = re.sub(r"<[^>]*>", "{}", text)
    for route in FLOOR_ROUTES:
        path = re.sub(r"\{[^}]*\}", "{}", route.path)
        assert path in re.sub(r"\{[a-z_]*\}", "{}", told), route.path
    assert [code for code in STATUS if f"`{code}`" not in text] == []
