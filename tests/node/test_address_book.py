# SPDX-License-Identifier: AGPL-3.0-or-later
"""The address book: what is confirmed stays, what is guessed makes way, everything is bounded and survives."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from ecot_node.config import PeerSettings
from ecot_node.federation.addresses import PartnerAddresses
from ecot_node.federation.framing import Hello
from ecot_node.federation.port import PeerStatus
from ecot_node.store.address_book import (
    ADDRESS_CHARS_MAX,
    CONFIRMED_MAX,
    FILE_NAME,
    GUESSES_MAX,
    STRANGERS_MAX,
    WRITTEN_MAX,
    AddressBook,
    Source,
)
from ecot_node.store.errors import StoreLimit, StoreTooNew

COOP, OTHER = b"c" * 32, b"o" * 32
GOOD, WRONG = "/ip4/192.0.2.1/tcp/8485", "/ip4/192.0.2.66/tcp/1"


@pytest.fixture
def book(tmp_path: Path) -> Iterator[AddressBook]:
    book = AddressBook(tmp_path)
    book.know(COOP, name="coop.example", is_recorded=True)
    yield book
    book.close()


def addresses(book: AddressBook, ledger: bytes = COOP) -> list[str]:
    return [one.address for one in book.partners()[ledger].addresses]


def numbered(count: int, host: int = 9) -> list[str]:
    return [f"/ip4/192.0.2.{host}/tcp/{port}" for port in range(1, count + 1)]


def test_what_was_learned_is_there_after_a_restart(book: AddressBook, tmp_path: Path) -> None:
    book.confirm(COOP, GOOD, Source.PARTNER, at_ms=5)
    book.close()
    again = AddressBook(tmp_path)
    partner = again.partners()[COOP]
    assert (partner.name, partner.is_recorded) == ("coop.example", True)
    assert [(one.address, one.confirmed_at_ms) for one in partner.addresses] == [(GOOD, 5)]
    again.close()


def test_last_confirmed_is_dialled_first_and_guesses_last(book: AddressBook) -> None:
    book.guess(COOP, ["/ip4/192.0.2.4/tcp/4"], Source.PARTNER, at_ms=9)
    book.write(COOP, ["/ip4/192.0.2.3/tcp/3"], at_ms=9)
    book.confirm(COOP, "/ip4/192.0.2.2/tcp/2", Source.SETTINGS, at_ms=1)
    book.confirm(COOP, "/ip4/192.0.2.1/tcp/1", Source.SETTINGS, at_ms=2)
    assert addresses(book) == [f"/ip4/192.0.2.{n}/tcp/{n}" for n in (1, 2, 3, 4)]


def test_guesses_displace_guesses_alone(book: AddressBook) -> None:
    book.confirm(COOP, GOOD, Source.PARTNER, at_ms=1)
    book.write(COOP, ["/ip4/192.0.2.3/tcp/3"], at_ms=1)
    for wave in range(20):
        book.guess(COOP, numbered(50, wave), Source.PARTNER, at_ms=wave)
    assert addresses(book)[:2] == [GOOD, "/ip4/192.0.2.3/tcp/3"]
    assert addresses(book)[2:] == numbered(GUESSES_MAX, 19)


def test_a_guess_of_what_is_known_changes_nothing(book: AddressBook) -> None:
    book.confirm(COOP, GOOD, Source.SETTINGS, at_ms=1)
    book.guess(COOP, [GOOD], Source.PARTNER, at_ms=2)
    (known,) = book.partners()[COOP].addresses
    assert (known.source, known.confirmed_at_ms) == (Source.SETTINGS, 1)


def test_a_guess_about_a_stranger_is_not_kept(book: AddressBook) -> None:
    book.guess(OTHER, [GOOD], Source.NETWORK, at_ms=1)
    assert OTHER not in book.partners()


def test_old_confirmed_addresses_make_room_but_written_ones_do_not(book: AddressBook) -> None:
    book.write(COOP, [GOOD], at_ms=0)
    book.confirm(COOP, GOOD, Source.OPERATOR, at_ms=0)
    for at_ms, one in enumerate(numbered(CONFIRMED_MAX + 5), start=1):
        book.confirm(COOP, one, Source.PARTNER, at_ms=at_ms)
    assert GOOD in addresses(book)
    assert len(addresses(book)) == CONFIRMED_MAX + 1
    assert numbered(1)[0] not in addresses(book)


def test_each_limit_refuses_and_changes_nothing(book: AddressBook) -> None:
    book.write(COOP, numbered(WRITTEN_MAX), at_ms=1)
    with pytest.raises(StoreLimit):
        book.write(COOP, [GOOD], at_ms=2)
    with pytest.raises(StoreLimit):
        book.confirm(COOP, "/dns4/" + "a" * ADDRESS_CHARS_MAX, Source.PARTNER, at_ms=2)
    assert sorted(addresses(book)) == sorted(numbered(WRITTEN_MAX))
    for number in range(STRANGERS_MAX):
        book.know(number.to_bytes(32, "big"), name="", is_recorded=False)
    with pytest.raises(StoreLimit):
        book.know(OTHER, name="", is_recorded=False)
    with pytest.raises(StoreLimit):
        book.invite(OTHER, [], name="", url="", expires_at_ms=9, at_ms=1)
    book.know(OTHER, name="", is_recorded=True)


def test_an_invitation_goes_when_it_expires_unless_there_is_a_peering(book: AddressBook) -> None:
    for ledger in (COOP, OTHER):
        book.invite(ledger, [GOOD], name="x.example", url="https://x.example", expires_at_ms=10, at_ms=1)
    assert book.partners()[COOP].name == "coop.example"
    book.tidy([COOP], at_ms=9)
    assert set(book.partners()) == {COOP, OTHER}
    book.tidy([COOP], at_ms=10)
    assert set(book.partners()) == {COOP}
    assert addresses(book) == [GOOD]


def test_a_newer_invitation_replaces_the_older_ones_addresses(book: AddressBook) -> None:
    book.invite(COOP, [WRONG], name="", url="", expires_at_ms=10, at_ms=1)
    book.confirm(COOP, GOOD, Source.INVITATION, at_ms=2)
    book.invite(COOP, ["/ip4/192.0.2.7/tcp/7"], name="", url="", expires_at_ms=20, at_ms=3)
    assert addresses(book) == [GOOD, "/ip4/192.0.2.7/tcp/7"]


def test_another_process_is_noticed(book: AddressBook, tmp_path: Path) -> None:
    operator = AddressBook(tmp_path)
    before = book.version()
    assert book.version() == before
    operator.write(COOP, [GOOD], at_ms=1)
    assert book.version() != before
    assert addresses(book) == [GOOD]
    assert operator.remove(COOP, GOOD) == 1
    assert addresses(book) == []
    assert operator.remove(COOP) == 0
    assert book.partners() == {}
    operator.close()


def test_a_book_of_a_later_release_is_left_alone(tmp_path: Path) -> None:
    AddressBook(tmp_path).close()
    with sqlite3.connect(tmp_path / FILE_NAME) as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(StoreTooNew):
        AddressBook(tmp_path)


# ---------------------------------------------------------------------------------------------- of a running node


def status(address: str | None = None, offered: tuple[str, ...] = (), *, is_connected: bool = True) -> PeerStatus:
    return PeerStatus(
        is_connected=is_connected,
        last_contact_age_ms=0,
        queued_count=0,
        rtt_ms=None,
        error_count=0,
        last_error=None,
        hello=Hello(1, "test", "test.example", bytes(32)),
        address=address,
        offered=offered,
    )


async def test_where_a_partner_answered_is_kept_and_what_it_offers_is_a_guess(book: AddressBook) -> None:
    settings = PeerSettings(ledger=COOP.hex(), addresses=(f"{GOOD}/p2p/12D3KooW",))
    found = PartnerAddresses([settings], book, clock_ms=lambda: 7)
    assert found.has_changed()
    assert found.of(COOP) == (GOOD,)
    await found.heard(COOP, status(GOOD, ("/ip4/192.0.2.4/tcp/4", GOOD)))
    assert found.has_changed()
    assert not found.has_changed()
    assert found.of(COOP) == (GOOD, "/ip4/192.0.2.4/tcp/4")
    kept = {one.address: (one.source, one.confirmed_at_ms) for one in book.partners()[COOP].addresses}
    assert kept == {GOOD: (Source.SETTINGS, 7), "/ip4/192.0.2.4/tcp/4": (Source.PARTNER, None)}


async def test_a_partner_that_is_not_connected_teaches_nothing(book: AddressBook) -> None:
    found = PartnerAddresses((), book)
    await found.heard(COOP, status(WRONG, (WRONG,), is_connected=False))
    assert addresses(book) == []


async def test_addresses_that_cannot_be_dialled_are_left_out(book: AddressBook) -> None:
    book.write(COOP, [GOOD, WRONG], at_ms=1)
    found = PartnerAddresses((), book, is_sound=lambda one: one != WRONG)
    assert found.has_changed()
    assert found.of(COOP) == (GOOD,)


async def test_a_book_that_cannot_be_written_stops_nothing(book: AddressBook) -> None:
    book.remove(COOP)
    found = PartnerAddresses((), book)
    await found.heard(COOP, status(GOOD))
    assert book.partners() == {}
