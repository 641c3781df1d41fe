# SPDX-License-Identifier: AGPL-3.0-or-later
"""``ecot key``: the person's keys, in the file and in the ledger."""

from pathlib import Path
from typing import Annotated, Final

from ecot_cli.acting import record, show_done
from ecot_cli.amounts import format_instant
from ecot_cli.errors import UsageProblem
from ecot_cli.framework import Command, argument, option
from ecot_cli.run import Run, read_id
from ecot_client.entries import build_entry
from ecot_client.errors import KeyProblem
from ecot_client.key_file import KeyFile, Purpose, StoredKey
from ecot_client.node import system_clock_ms
from ecot_protocol.domains.membership.keys import AddKey, CompleteRecovery, OpenRecovery, RevokeKey, VetoRecovery
from ecot_protocol.ledger.entry_type import BOARD
from ecot_protocol.wire.encoding import encode

RECOVERY_LIFETIME_MS: Final = 30 * 86_400_000
"""A board needs time to meet."""

Label = Annotated[str, argument("key_label")]
IsRecovery = Annotated[bool, option("--recovery", "recovery")]
PersonOption = Annotated[str | None, option("--person", "person")]


async def new(run: Run, label: Label = "default", is_recovery: IsRecovery = False) -> None:
    """Make a key in the file, and the file if it is missing."""
    key = _make(run, label, "recovery" if is_recovery else "daily")
    if not run.out.json(_shown(key)):
        run.out.say("key_made", label=key.label, key_id=key.signer.key_id.hex(), path=str(run.profile.keys_path))


def _make(run: Run, label: str, purpose: Purpose) -> StoredKey:
    path = run.profile.keys_path
    keys = run.keys if path.exists() else KeyFile.create(path, run.passphrase)
    return keys.make(label, purpose, now_ms=system_clock_ms())


def _shown(key: StoredKey) -> dict[str, object]:
    return {
        "label": key.label,
        "key_id": key.signer.key_id.hex(),
        "public_key": key.signer.public_key.hex(),
        "purpose": key.purpose,
        "made_at_ms": key.made_at_ms,
    }


async def show(run: Run, is_public: Annotated[bool, option("--public", "public_key")] = False) -> None:
    """Show the keys of the file, never their seeds; with ``--public``, nothing but the public key that signs."""
    keys = run.keys.keys
    if is_public:
        _show_public(run)
        return
    if not run.out.json([_shown(key) for key in keys]):
        columns = ("label", "purpose", "key_id", "made", "public_key")
        run.out.table(
            columns,
            (
                (
                    key.label,
                    run.out.word("purpose", key.purpose),
                    key.signer.key_id.hex(),
                    format_instant(key.made_at_ms, run.locale),
                    key.signer.public_key.hex(),
                )
                for key in keys
            ),
        )


def _show_public(run: Run) -> None:
    """Write the public key that founders give to whoever runs ``ecot-node init``."""
    if not run.signers:
        raise KeyProblem("key_needed")
    public_key = run.signers[0].public_key.hex()
    if not run.out.json({"public_key": public_key}):
        run.out.plain(public_key)


async def add(run: Run, label: Label, is_recovery: IsRecovery = False) -> None:
    """Make a further key, and have the ledger take it as the person's; a key that it has already signs too."""
    purpose: Purpose = "recovery" if is_recovery else "daily"
    async with run.node() as node:
        me = await node.me()
        key = next((one for one in run.keys.keys if one.label == label), None) or _make(run, label, purpose)
        payload = AddKey(public_key=key.signer.public_key, purpose=key.purpose)
        signers = (node.signers[0], key.signer)
        receipt = await record(node, "membership.add_key", payload, author=bytes.fromhex(me.person), signers=signers)
    show_done(run, receipt, "key_added", label=label, key_id=key.signer.key_id.hex())


async def revoke(run: Run, name: Annotated[str, argument("key_name")]) -> None:
    """Revoke a key of the person: it signs nothing from then on."""
    async with run.node() as node:
        me = await node.me()
        revoked = _find_key_id(run, name)
        payload = RevokeKey(key_id=revoked)
        receipt = await record(node, "membership.revoke_key", payload, author=bytes.fromhex(me.person))
    show_done(run, receipt, "key_revoked", key_id=revoked.hex())


def _find_key_id(run: Run, name: str) -> bytes:
    try:
        return run.keys.find(name).signer.key_id
    except KeyProblem:
        return read_id(name)


async def recover(
    run: Run,
    person: Annotated[str, argument("person_id")],
    label: Annotated[str, option("--label", "key_label")] = "recovered",
    output: Annotated[Path | None, option("--output", "recovery_file")] = None,
    is_completing: Annotated[bool, option("--complete", "complete")] = False,
) -> None:
    """Ask the board for a new key in place of lost ones, or take it once the time to veto is over.

    The request is a file, signed by the new key; two of the board, or as many as it takes, sign it with
    ``ecot draft sign FILE``.
    """
    person_id = read_id(person)
    key = None
    if run.profile.keys_path.exists():
        key = next((one for one in run.keys.keys if one.label == label), None)
    if is_completing:
        await _complete(run, person_id, key)
        return
    key = key or _make(run, label, "daily")
    async with run.node(needs_keys=False) as node:
        entry = build_entry(
            await node.ledger_id(),
            "membership.open_recovery",
            OpenRecovery(person=person_id, public_key=key.signer.public_key),
            author=BOARD,
            signers=(key.signer,),
            now_ms=node.clock_ms(),
            lifetime_ms=RECOVERY_LIFETIME_MS,
        )
    path = output or Path(f"recovery-{person[:8]}.ecot")
    path.write_bytes(encode(entry))
    if not run.out.json({"file": str(path), "key_id": key.signer.key_id.hex()}):
        run.out.say("recovery_file", path=str(path))


async def _complete(run: Run, person: bytes, key: StoredKey | None) -> None:
    if key is None:
        raise UsageProblem("recovery_key_needed")
    async with run.node(needs_keys=False) as node:
        payload = CompleteRecovery(public_key=key.signer.public_key)
        signers = (key.signer,)
        receipt = await record(node, "membership.complete_recovery", payload, author=person, signers=signers)
    show_done(run, receipt, "recovered", key_id=key.signer.key_id.hex())


async def veto(run: Run, person: PersonOption = None) -> None:
    """Stop a recovery of one's own keys that one did not ask for. A recovery key is enough, with ``--person``."""
    async with run.node() as node:
        author = read_id(person) if person is not None else bytes.fromhex((await node.me()).person)
        named = run.keys.find(run.options.key).signer if run.options.key else None
        signer = named or next(iter((*node.signers, *run.keys.signers("recovery"))), None)
        if signer is None:
            raise KeyProblem("key_needed")
        receipt = await record(node, "membership.veto_recovery", VetoRecovery(), author=author, signers=(signer,))
    show_done(run, receipt, "vetoed")


KEY_COMMANDS: Final = (
    Command("key new", new),
    Command("key show", show),
    Command("key add", add),
    Command("key revoke", revoke),
    Command("key recover", recover),
    Command("key veto", veto),
)
