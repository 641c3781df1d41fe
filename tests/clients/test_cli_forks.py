# SPDX-License-Identifier: AGPL-3.0-or-later
"""A cooperative shows two histories to its two partners: real nodes, libp2p and HTTP, and a member's `ecot`.

Its node is stopped; whoever has its log key goes on in its name, with one history for one partner's
`POST /witness/add-checkpoint` and another for the other's. Each alone is consistent. They compare, and everybody knows.
"""

from hashlib import sha256
from pathlib import Path

from ledger_kit import seed
from process_kit import Raised
from test_cli_commands import Desk
from trio_kit import NAMES, Trio, make_trio, running, wait_for_witnesses

from ecot_protocol.wire.checkpoint import Checkpoint, sign_checkpoint
from ecot_protocol.wire.cosignature import Cosigner
from ecot_protocol.wire.fork import fork_id, verify_fork
from ecot_protocol.wire.merkle import TileEdge, consistency_proof, leaf_hashes, root
from ecot_protocol.wire.note import NoteSigner, SignedNote, parse_signatures
from ecot_protocol.wire.witness import AddCheckpointRequest

EXCHANGE_TIMEOUT_S = 120.0
"""Partners tell each other what has changed every 30 s."""
LIAR, FIRST, SECOND = NAMES


class Forger:
    """Has the log key of a cooperative and its log as it was, and goes on in its name."""

    def __init__(self, trio: Trio, node: Raised) -> None:
        self.origin = node.get("/v1/ledger")[1]["origin"]
        self.signer = NoteSigner(self.origin, trio.coops[LIAR].keys.seed("log"))
        self.leaves = [bytes(row[0]) for row in node.rows("SELECT leaf_hash FROM records ORDER BY idx")]

    def extension(self, name: str, old_size: int, count: int) -> bytes:
        """Return an add-checkpoint request for a log that goes on with `count` invented records."""
        edge = TileEdge.empty()
        invented = leaf_hashes(f"{name} {number}".encode() for number in range(count))
        edge.append_many([*self.leaves, *invented])
        size = len(self.leaves) + count
        note = sign_checkpoint(Checkpoint(self.origin, size, root(edge, size)), self.signer)
        return AddCheckpointRequest(old_size, consistency_proof(edge, old_size, size), note).format()


def seen_by(node: Raised, origin: str) -> int:
    """Return how much of a log a node has cosigned."""
    raw = node.ask(f"/witness/{sha256(origin.encode()).hexdigest()}/checkpoint")
    return Checkpoint.parse(SignedNote.parse(raw).text).size


def wait_for_fork(node: Raised) -> str:
    """Wait until a node keeps a proof, and return its id."""
    for _ in node.patience(EXCHANGE_TIMEOUT_S):
        items = node.get("/v1/forks")[1]["items"]
        if items:
            return str(items[0]["id"])
    raise AssertionError(f"nobody found out\n{node.log()[-4_000:]}")


def desk_of(trio: Trio, name: str, home: Path) -> Desk:
    """Return a member's desk at a cooperative."""
    return Desk(home, name, trio.coops[name].url, seed(f"node kit {name}-ada"))


def test_what_two_partners_cosigned_is_witnessed_and_two_histories_are_warned_of(tmp_path: Path) -> None:
    trio = make_trio(tmp_path)
    with running(trio) as nodes:
        for name in NAMES:
            wait_for_witnesses(nodes[name])
        desks = {name: desk_of(trio, name, tmp_path / "home") for name in (FIRST, SECOND)}
        check_witnessed(desks[FIRST], tmp_path)
        liar = nodes[LIAR]
        forger = Forger(trio, liar)
        liar.end()
        for name, invented in ((FIRST, "for the first"), (SECOND, "for the second")):
            request = forger.extension(invented, seen_by(nodes[name], forger.origin), 3)
            assert parse_signatures(nodes[name].ask("/witness/add-checkpoint", request))
        proofs = {name: wait_for_fork(nodes[name]) for name in (FIRST, SECOND)}
        for name, proof in proofs.items():
            raw = nodes[name].ask(f"/v1/forks/{proof}")
            assert fork_id(raw) == proof
            assert verify_fork(raw, [forger.signer.verifier]).origin == forger.origin
            assert proof in nodes[name].get("/v1/ledger")[1]["forks"]
        for desk in desks.values():
            check_warned(desk, tmp_path)


def check_witnessed(desk: Desk, place: Path) -> None:
    """A member reads who has seen an entry, keeps the proof, and verifies it without any node."""
    policy = desk.does("proof", "policy")
    assert (policy["is_set"], policy["quorum"]) == (False, "partners")
    file = place / "entry.tlog-proof"
    got = desk.does("proof", "get", "1", "--out", str(file))
    assert (got["outcome"], got["index"]) == ("witnessed", 1)
    assert {one["name"].partition("/")[0] for one in got["witnesses"]} == {f"{LIAR}.example", f"{SECOND}.example"}
    offline = Desk(desk.home.with_name("elsewhere"), "nobody", "http://127.0.0.1:1")
    mine = place / "mine.policy"
    desk.does("proof", "policy", "--out", str(mine))
    checked = offline.does("verify", str(file), "--policy", str(mine))
    assert (checked["outcome"], checked["id"]) == ("witnessed", got["id"])
    assert "Constaté par" in desk.types("verify", str(file), language="fr").out
    strict = place / "strict.policy"
    stranger = Desk(place / "home2", "stranger", "http://127.0.0.1:1")
    far = Cosigner("far.example", bytes(32)).verifier.vkey
    strict.write_text(mine.read_text().replace("quorum partners", "") + f"witness far {far}\nquorum far\n")
    said = stranger.types("verify", str(file), "--policy", str(strict), "--json")
    assert (said.exit_code, said.json["outcome"], said.error) == (4, "not_enough", "proof_quorum_missing")
    said = stranger.types("verify", str(file), "--json")
    assert (said.exit_code, said.error) == (2, "log_key_needed")
    only_key = stranger.does("verify", str(file), "--log-key", got_key(desk))
    assert only_key["outcome"] == "recorded"
    file.write_bytes(file.read_bytes().replace(b"index 1\n", b"index 2\n"))
    said = desk.types("verify", str(file), "--json")
    assert (said.exit_code, said.out) == (4, "")
    assert {one["status"] for one in desk.does("peer", "histories")} == {"agrees"}


def got_key(desk: Desk) -> str:
    """Return the key of the desk's log, as its policy names it."""
    text: str = desk.does("proof", "policy")["policy"]
    return text.split()[1]


def check_warned(desk: Desk, place: Path) -> None:
    """Every command warns, with the partner's name, in the reader's language; the proof can be handed on."""
    for language, words in (("en", "WARNING"), ("fr", "ATTENTION")):
        said = desk.types("transfer", "list", language=language)
        assert said.exit_code == 0
        assert words in said.err
        assert f"{LIAR}.example" in said.err
    said = desk.types("whoami", "--json")
    assert f"{LIAR}.example" in said.err
    assert said.json
    folder = place / f"proofs of {desk.name}"
    (kept,) = desk.does("proof", "forks", "--save", str(folder))
    assert (kept["name"], kept["is_own"]) == (f"{LIAR}.example", False)
    (file,) = folder.iterdir()
    assert desk.does("verify", str(file))["is_log_key_known"]
    stranger = Desk(place / f"home of a stranger to {desk.name}", "stranger", "http://127.0.0.1:1")
    shown = stranger.does("verify", str(file))
    assert (shown["outcome"], shown["is_log_key_known"]) == ("forked", False)
    assert f"{LIAR}.example" in shown["origin"]
    file.write_bytes(file.read_bytes().replace(b"\nroot ", b"\nroot A", 1))
    assert stranger.types("verify", str(file), "--json").exit_code == 4
    histories = [one["origin"] for one in desk.does("peer", "histories") if one["status"] == "forked"]
    assert histories == [shown["origin"]]
