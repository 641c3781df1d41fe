# SPDX-License-Identifier: AGPL-3.0-or-later
"""Invitations of this node, and what is kept of those of others. See `ecot_protocol.domains.federation.invitation`."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ecot_node.config import KEYS_FOLDER, SNAPSHOTS_FOLDER, ConfigError, Settings
from ecot_node.federation.multiaddrs import CIRCUIT, find_problem, parse_address
from ecot_node.ledger.boot import find_snapshot, replay
from ecot_node.ledger.node_keys import load_keys
from ecot_node.ledger.port import RecordedEntry
from ecot_node.store.address_book import AddressBook
from ecot_node.store.port import LogStore
from ecot_protocol.domains.coop.state import ML_DSA_COSIGNER, Profile
from ecot_protocol.domains.federation.invitation import Invitation, InvitedUnit, check_open, invite, read_invitation
from ecot_protocol.machine import Machine
from ecot_protocol.state import State
from ecot_protocol.wire.keys import Signer

DAY_MS: Final = 86_400_000
DAYS_MAX: Final = 400
LEDGER_DIGITS: Final = 64
NONCE_SIZE_BYTES: Final = 16


async def read_state(folder: Path, store: LogStore) -> State:
    """Return the state of a ledger, from its newest snapshot and the records behind it; the node may be running.

    Raises:
        StoreError, LedgerCorrupt.
    """

    async def ignore(_recorded: list[RecordedEntry]) -> None: ...

    opened = await store.open(ledger=None, read_only=True)
    try:
        state = await find_snapshot(store, folder / SNAPSHOTS_FOLDER, opened.size) or State()
        await replay(Machine(), store, state, ignore)
        return state
    finally:
        await store.close()


def make_invitation(
    folder: Path, settings: Settings, state: State, addresses: Sequence[str], url: str, days: int, now_ms: int
) -> str:
    """Return the text of an invitation to this node's cooperative.

    Args:
        folder: of the node, with its keys.
        settings: of the node.
        state: of its ledger.
        addresses: where partners reach the node; if empty, `federation.announce` and the relays of the settings.
        url: where it answers over HTTP; may be empty.
        days: until it expires, 1 to `DAYS_MAX`.
        now_ms: Unix time.

    Raises:
        ConfigError: the ledger is not founded, the keys are not those of the ledger, an address is malformed or none
            is known, or `days` is out of range.
    """
    profile = state.coop.profile.get("")
    if profile is None:
        raise ConfigError("the ledger is not founded yet: an invitation names it")
    if not 1 <= days <= DAYS_MAX:
        raise ConfigError(f"--days {days}: expected 1 to {DAYS_MAX}")
    keys = load_keys(folder / KEYS_FOLDER)
    public_keys = {purpose: one.public_key for purpose, one in state.coop.node_keys.items()}
    if any(keys.public_key(purpose) != public_keys[purpose] for purpose in ("agent", "host")):
        raise ConfigError(f"{folder / KEYS_FOLDER} does not hold the keys that the ledger names")
    agent = Signer(keys.seed("agent"))
    return invite(
        Invitation(
            version=1,
            ledger=profile.ledger,
            domain=profile.domain,
            origin=profile.origin,
            agent=agent.public_key,
            cosigner=public_keys["cosigner"],
            cosigner_ml_dsa_44=public_keys.get(ML_DSA_COSIGNER),
            host=public_keys["host"],
            log=public_keys["log"],
            keys_index=state.coop.node_keys_index,
            units=_units(profile),
            addresses=_addresses(settings, addresses),
            url=url,
            expires_at_ms=now_ms + days * DAY_MS,
            nonce=os.urandom(NONCE_SIZE_BYTES),
        ),
        agent,
    )


def _units(profile: Profile) -> tuple[InvitedUnit, ...]:
    return tuple(InvitedUnit(one.code, one.scale) for one in profile.units if one.kind != "currency")


def _addresses(settings: Settings, given: Sequence[str]) -> tuple[str, ...]:
    relayed = tuple(one + CIRCUIT for one in settings.federation.relays)
    found = tuple(given) or settings.federation.announce + relayed
    if not found:
        raise ConfigError("nobody could find this node: give --address, or set federation.announce or .relays")
    for one in found:
        problem = find_problem(one)
        if problem is not None:
            raise ConfigError(f"address {one!r}: {problem}")
    return tuple(dict.fromkeys(parse_address(one, None) for one in found))


def accept_invitation(book: AddressBook, text: str, now_ms: int) -> tuple[Invitation, tuple[str, ...]]:
    """Keep what an invitation says in the address book.

    Returns:
        The invitation, and those of its addresses that this node can dial.

    Raises:
        RemoteProtocolError: it is not an invitation, altered, or has expired.
        StoreError: there is no room in the book.
    """
    invitation = read_invitation(text)
    check_open(invitation, now_ms)
    sound = tuple(parse_address(one, None) for one in invitation.addresses if find_problem(one) is None)
    book.invite(
        invitation.ledger,
        sound,
        name=invitation.domain,
        url=invitation.url,
        expires_at_ms=invitation.expires_at_ms,
        at_ms=now_ms,
    )
    return invitation, sound


def find_ledger(book: AddressBook, name: str) -> bytes:
    """Return the ledger that an operator means: 64 hexadecimal digits, or the domain of a partner in the book.

    Raises:
        ConfigError: it is neither, or several partners have that domain.
    """
    if len(name) == LEDGER_DIGITS:
        try:
            return bytes.fromhex(name)
        except ValueError:
            pass
    found = [ledger for ledger, one in book.partners().items() if one.name == name]
    if len(found) != 1:
        raise ConfigError(f"{name!r}: expected the 64 digits of a ledger's id, or the domain of a partner in the book")
    return found[0]
