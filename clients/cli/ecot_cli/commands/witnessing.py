# SPDX-License-Identifier: AGPL-3.0-or-later
"""Proof files under a policy, and what the node's partners see of one another's logs."""

from pathlib import Path
from typing import Annotated, Final

from ecot_cli.amounts import format_instant
from ecot_cli.errors import UsageProblem
from ecot_cli.framework import Command, argument, option
from ecot_cli.run import Run
from ecot_cli.standing import derived_path, kept_policy, policy_of, policy_path
from ecot_client.checks import ProofCheck, check_proof, fetch_proof
from ecot_client.errors import ProofFailed
from ecot_client.forks import KeptFork, kept_forks
from ecot_client.journal import Journal
from ecot_client.models import WatchedLog
from ecot_client.node import NodeClient, system_clock_ms
from ecot_client.policies import read_policy
from ecot_protocol.domains.federation.statements import DECISIONS_SUFFIX
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.wire.fork import ForkProof, fork_id, verify_fork
from ecot_protocol.wire.note_key import NoteVerifier
from ecot_protocol.wire.policy import NO_QUORUM, Policy, format_policy, parse_policy

PolicyFile = Annotated[Path | None, option("--policy", "policy_file")]
_NO_WITNESSES: Final[Policy] = parse_policy(b"quorum none\n")


async def get_proof(
    run: Run,
    entry: Annotated[str, argument("proof_entry")],
    out: Annotated[Path, option("--out", "proof_out")],
    policy_file: PolicyFile = None,
) -> None:
    """Fetch the proof of an entry as a file, with the cosignatures that the policy asks for."""
    async with run.node() as node:
        policy = read_policy(policy_file.read_bytes()) if policy_file else await policy_of(run, node)
        fetched = await fetch_proof(node, await _index_of(node, entry), policy)
    out.write_bytes(fetched.raw)
    if fetched.record is not None:
        record_path(out).write_bytes(fetched.record)
    show_check(run, fetched.check, is_key_known=True, file=str(out))


async def _index_of(node: NodeClient, entry: str) -> int:
    """Return the place of an entry that is named by its number, or by the id in a receipt of this profile."""
    if entry.isascii() and entry.isdigit() and len(entry) < 16:
        return int(entry)
    try:
        receipt = node.journal.receipt_of_entry(bytes.fromhex(entry))
    except ValueError:
        receipt = None
    if receipt is None:
        raise UsageProblem("entry_not_kept", entry=entry)
    return receipt.index


def record_path(proof: Path) -> Path:
    """Return where the record of a proof stands that has no room for it."""
    return proof.with_name(proof.name + ".record")


def verify_proof_file(
    run: Run, file: Path, raw: bytes, policy_file: Path | None, known: tuple[NoteVerifier, ...]
) -> None:
    """Verify a ``.tlog-proof`` offline and say how far the entry is witnessed.

    Raises:
        ProofFailed: forged; or ``proof_quorum_missing``: the log has it, but not enough witnesses.
        UsageProblem: ``log_key_needed``: neither profile, policy nor option names the log's key.
    """
    policy = read_policy(policy_file.read_bytes()) if policy_file else kept_policy(run) or _NO_WITNESSES
    if not known and not policy.logs:
        raise UsageProblem("log_key_needed")
    beside = record_path(file)
    check = check_proof(
        raw,
        policy,
        known,
        now_unix_s=system_clock_ms() // 1_000,
        record=beside.read_bytes() if beside.exists() else None,
    )
    show_check(run, check, is_key_known=True, file=str(file))
    if check.head.outcome == "not_enough":
        raise ProofFailed("proof_quorum_missing", missing=", ".join(check.head.missing))


def show_check(run: Run, check: ProofCheck, *, is_key_known: bool, file: str) -> None:
    """Tell what a proof proves: recorded, witnessed by whom and when, or by too few."""
    head = check.head
    shown = {
        "outcome": head.outcome,
        "file": file,
        "index": check.index,
        "id": check.entry_id.hex(),
        "type": check.entry_type,
        "received_at_ms": check.received_at_ms,
        "ledger": check.ledger.hex(),
        "origin": head.origin,
        "size": head.size,
        "witnesses": [{"name": one.name, "at_ms": one.at_unix_s * 1_000} for one in head.witnesses],
        "missing": list(head.missing),
        "is_log_key_known": is_key_known,
    }
    if run.out.json(shown):
        return
    day = format_instant(check.received_at_ms, run.locale)
    run.out.say(
        "proof_recorded", index=check.index, origin=head.origin, day=day, entry=run.out.word("entry", check.entry_type)
    )
    for one in head.witnesses:
        run.out.say("proof_seen", witness=one.name, day=format_instant(one.at_unix_s * 1_000, run.locale))
    run.out.say(f"proof_{head.outcome}" if head.outcome != "recorded" else "proof_recorded_only")


async def show_policy(
    run: Run,
    file: Annotated[Path | None, option("--set", "policy_set")] = None,
    is_reset: Annotated[bool, option("--reset", "policy_reset")] = False,
    out: Annotated[Path | None, option("--out", "policy_out")] = None,
) -> None:
    """Show whose cosignatures are asked for; or set that from a file, or go back to what follows from the peerings."""
    if file is not None and is_reset:
        raise UsageProblem("policy_set_or_reset")
    path = policy_path(run)
    if is_reset:
        path.unlink(missing_ok=True)
    if file is not None:
        raw = file.read_bytes()
        read_policy(raw)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_bytes(raw)
    is_set = path.exists()
    if is_set:
        policy = read_policy(path.read_bytes())
    else:
        async with run.node() as node:
            policy = await policy_of(run, node)
    text = (path if is_set else derived_path(run)).read_bytes()
    if out is not None:
        out.write_bytes(text)
    shown = {
        "is_set": is_set,
        "quorum": policy.quorum,
        "witnesses": [one.name for one in policy.witnesses],
        "policy": format_policy(policy).decode("utf-8", "replace"),
    }
    if run.out.json(shown):
        return
    run.out.say("policy_set" if is_set else "policy_derived")
    run.out.plain(text.decode("utf-8", "replace").rstrip("\n"))
    if policy.quorum == NO_QUORUM:
        run.out.say("policy_of_nobody")


def verify_fork_file(run: Run, raw: bytes, known: tuple[NoteVerifier, ...]) -> None:
    """Verify offline that a log signed two histories.

    Raises:
        ProofFailed: it proves nothing.
    """
    try:
        proof = ForkProof.parse(raw)
        keys = known or _keys_of_partners(run)
        is_known = proof.log_key in keys
        found = verify_fork(proof, keys if known or is_known else (proof.log_key,))
    except RemoteProtocolError as error:
        raise ProofFailed(error.code, error.detail) from None
    shown = {
        "outcome": "forked",
        "origin": found.origin,
        "first_size": found.first.size,
        "second_size": found.second.size,
        "log_vkey": found.log_key.vkey,
        "is_log_key_known": is_known,
        "id": fork_id(raw),
    }
    if run.out.json(shown):
        return
    run.out.say("fork_good", origin=found.origin, first_size=found.first.size, second_size=found.second.size)
    if not is_known:
        run.out.say("log_key_not_known", log_key=found.log_key.vkey)


def _keys_of_partners(run: Run) -> tuple[NoteVerifier, ...]:
    """Return the log keys that this profile has compared with a peering or pinned."""
    if not (run.profile.state_dir / "journal.db").exists():
        return ()
    journal = Journal(run.profile.state_dir)
    try:
        pin, forks = journal.pin(), kept_forks(journal)
    finally:
        journal.close()
    vkeys = () if pin is None else (pin.log_vkey, *pin.former_vkeys)
    return (*map(NoteVerifier.from_vkey, vkeys), *(ForkProof.parse(one.proof).log_key for one in forks))


async def histories(run: Run) -> None:
    """List the logs that the node compares with its partners, and what speaks against them."""
    async with run.node() as node:
        found = await node.watched()
        domains = {one.ledger: one.domain for one in found}
    if run.out.json(found):
        return
    run.out.table(
        ("log", "status", "size>", "told_by", "proof"),
        (
            (
                _name_of(one),
                run.out.word("history", one.status),
                one.size,
                ", ".join(domains.get(source) or source[:8] for source in one.sources),
                ", ".join(fork[:16] for fork in one.forks),
            )
            for one in found
        ),
    )
    for one in found:
        for question in one.open:
            run.out.say(
                "history_refused" if question.is_refused else "history_unproven",
                log=_name_of(one),
                source=domains.get(question.source) or question.source[:8],
                first_size=question.first_size,
                second_size=question.second_size,
                day=format_instant(question.since_ms, run.locale),
            )


def _name_of(log: WatchedLog) -> str:
    """Return a log's name for people: the partner's domain, and that it is its decision log if it is."""
    name = log.domain or log.origin.removesuffix(DECISIONS_SUFFIX)
    return name + DECISIONS_SUFFIX if log.origin.endswith(DECISIONS_SUFFIX) else name


async def export_forks(run: Run, folder: Annotated[Path | None, option("--save", "forks_folder")] = None) -> None:
    """List the proofs of two histories that are kept here, or write them as files for anybody to verify."""
    journal = Journal(run.profile.state_dir)
    try:
        kept = kept_forks(journal)
    finally:
        journal.close()
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        for one in kept:
            (folder / f"{one.id[:16]}.fork-proof").write_bytes(one.proof)
    if run.out.json([_shown(one) for one in kept]):
        return
    run.out.table(
        ("day", "log", "proof"), ((format_instant(one.noticed_ms, run.locale), one.name, one.id) for one in kept)
    )


def _shown(one: KeptFork) -> dict[str, object]:
    return {
        "id": one.id,
        "name": one.name,
        "is_own": one.is_own,
        "noticed_ms": one.noticed_ms,
        "origin": one.fork.origin,
    }


WITNESSING_COMMANDS: Final = (
    Command("proof get", get_proof),
    Command("proof policy", show_policy),
    Command("proof forks", export_forks),
    Command("peer histories", histories),
)
