# SPDX-License-Identifier: AGPL-3.0-or-later
"""Where the partners of a running node are dialled: what the settings say, and what the address book knows.

The book fills itself: an address at which a partner answered is confirmed there, so that after a restart it is dialled
first, and `node.toml` need not name it. What a partner says of itself is kept as a guess. See `store.address_book`.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import structlog

from ecot_node.federation.port import PeerStatus
from ecot_node.store.address_book import AddressBook, KnownAddress, Source, order_addresses
from ecot_node.store.errors import StoreError

log = structlog.get_logger("ecot.federation")


class PeerAddress(Protocol):
    """Where a partner is found; of the node's settings."""

    @property
    def ledger(self) -> str: ...

    @property
    def addresses(self) -> tuple[str, ...]: ...


class PartnerAddresses:
    """The addresses of partners, for the federation of one node.

    Args:
        settings: what `node.toml` says.
        book: what was learned; None: nothing is, nor kept.
        is_sound: tells whether an address can be dialled by the node's transport; others are left out.
        clock_ms: the wall clock.
    """

    def __init__(
        self,
        settings: Sequence[PeerAddress] = (),
        book: AddressBook | None = None,
        *,
        is_sound: Callable[[str], bool] = lambda _address: True,
        clock_ms: Callable[[], int] = lambda: 0,
    ) -> None:
        self._book, self._is_sound, self._clock_ms = book, is_sound, clock_ms
        self._settings = {bytes.fromhex(one.ledger): tuple(one.addresses) for one in settings}
        self._seen: object = None
        self._known: dict[bytes, tuple[KnownAddress, ...]] = {}
        self._heard: dict[bytes, tuple[str | None, tuple[str, ...]]] = {}

    def has_changed(self) -> bool:
        """Tell whether the book is not what it was at the last call: an operator may have written in it."""
        if self._book is None:
            return False
        try:
            version = self._book.version()
            if version == self._seen:
                return False
            self._known = {ledger: one.addresses for ledger, one in self._book.partners().items()}
            self._seen = version
        except StoreError as error:
            log.warning("address_book_unread", error=str(error))
            return False
        return True

    def of(self, ledger: bytes) -> tuple[str, ...]:
        """Return where a partner is dialled, the best first."""
        known = self._known.get(ledger, ())
        written = {one.address for one in known}
        mine = (
            KnownAddress(address, Source.SETTINGS, 0, None)
            for address in map(_bare, self._settings.get(ledger, ()))
            if address not in written
        )
        return tuple(one.address for one in order_addresses((*known, *mine)) if self._is_sound(one.address))

    async def know(self, partners: Mapping[bytes, str]) -> None:
        """Keep the recorded partners by their names, and forget invitations that have expired.

        Args:
            partners: ledger id -> domain, of all recorded partners.
        """
        if self._book is not None:
            await self._write(self._know, self._book, dict(partners))

    async def heard(self, ledger: bytes, status: PeerStatus) -> None:
        """Take what the transport says of a partner that is connected: where it answered, what it offers."""
        if self._book is None or not status.is_connected:
            return
        before, now = self._heard.get(ledger, (None, ())), (status.address, status.offered)
        if now == before:
            return
        self._heard[ledger] = now
        await self._write(self._keep, self._book, ledger, before, now)

    async def seen(self, ledger: bytes, addresses: Sequence[str]) -> None:
        """Take where a partner seems to be on the local network: a guess."""
        if self._book is not None:
            known = {one.address for one in self._known.get(ledger, ()) if one.source is not Source.NETWORK}
            guesses = [one for one in addresses if one not in known]
            await self._write(self._guess, self._book, ledger, guesses)

    def lost(self, ledger: bytes) -> None:
        """Note that a partner is gone, so that it is confirmed again when it is back."""
        self._heard.pop(ledger, None)

    def _know(self, book: AddressBook, partners: Mapping[bytes, str]) -> None:
        for ledger, name in partners.items():
            book.know(ledger, name=name, is_recorded=True)
        book.tidy(partners, at_ms=self._clock_ms())

    def _keep(
        self,
        book: AddressBook,
        ledger: bytes,
        before: tuple[str | None, tuple[str, ...]],
        now: tuple[str | None, tuple[str, ...]],
    ) -> None:
        address, offered = now
        if address is not None and address != before[0]:
            is_ours = address in map(_bare, self._settings.get(ledger, ()))
            book.confirm(ledger, address, Source.SETTINGS if is_ours else Source.PARTNER, at_ms=self._clock_ms())
        if offered and offered != before[1]:
            known = {one.address for one in self._known.get(ledger, ()) if one.source is not Source.PARTNER}
            guesses = [one for one in offered if one not in known and one != address]
            book.guess(ledger, guesses, Source.PARTNER, at_ms=self._clock_ms())

    def _guess(self, book: AddressBook, ledger: bytes, addresses: Sequence[str]) -> None:
        book.guess(ledger, addresses, Source.NETWORK, at_ms=self._clock_ms())

    async def _write(self, write: Callable[..., None], *arguments: object) -> None:
        try:
            await asyncio.to_thread(write, *arguments)
        except StoreError as error:
            # The node goes on with what it knows; it only has to find its partners again after a restart.
            log.warning("address_book_unwritten", error=str(error))


def _bare(address: str) -> str:
    """Return an address without the peer that it names at its end."""
    head, _, peer = address.rpartition("/p2p/")
    return head if head and "/" not in peer else address
