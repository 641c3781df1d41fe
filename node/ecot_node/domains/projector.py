# SPDX-License-Identifier: AGPL-3.0-or-later
"""Turns a group of records into rows: the records' own and what each domain makes of their facts."""

from collections.abc import Sequence
from typing import Final

import msgspec

from ecot_node.domains.records.views import APPEND_ACCOUNT, APPEND_POSTING, APPEND_RECORD, ID_BYTES, POSTING_BITS
from ecot_node.domains.rows import DomainViews, Rows, Value, merge_projections
from ecot_node.ledger.port import RecordedEntry
from ecot_protocol.ledger.facts import Posting


class Touches:
    """Which records have to do with whom, for the records that the index of the views does not cover yet."""

    __slots__ = ("as_owner", "as_party", "count")

    def __init__(self) -> None:
        self.as_party: dict[bytes, list[int]] = {}
        self.as_owner: dict[bytes, list[int]] = {}
        self.count = 0

    def add(self, index: int, parties: Sequence[bytes], owners: Sequence[bytes]) -> None:
        """Note a record; `owners` are those who are not parties."""
        as_party = self.as_party
        for party in parties:
            known = as_party.get(party)
            if known is None:
                as_party[party] = [index]
            else:
                known.append(index)
        for owner in owners:
            self.as_owner.setdefault(owner, []).append(index)
        self.count += len(parties) + len(owners)

    def rows(self) -> list[tuple[Value, ...]]:
        """Return the rows of `touches`, by whom: sorted, so that each page of the table is touched once."""
        found: list[tuple[Value, ...]] = []
        for whom in sorted(self.as_party.keys() | self.as_owner.keys()):
            # A party that a record names twice is one.
            as_party = sorted(set(self.as_party.get(whom, ())))
            as_owner = self.as_owner.get(whom, [])
            last = max(as_party[-1:] + as_owner[-1:])
            found.append((whom, last, _json(as_party), _json(as_owner)))
        return found


def _json(indexes: list[int]) -> str:
    return msgspec.json.encode(indexes).decode()


class Projector:
    """Knows every domain's projections.

    Args:
        domains: in order from low to high.

    Attributes:
        accounts: (owner, unit, purpose) -> number in the table of accounts.
    """

    def __init__(self, domains: Sequence[DomainViews]) -> None:
        self._projections: Final = merge_projections(domains)
        self.accounts: dict[tuple[bytes, str, str], int] = {}

    def project(self, entries: Sequence[RecordedEntry], touches: Touches) -> Rows:
        """Return what the records write, and note in `touches` whom they have to do with."""
        rows = Rows()
        records, postings = rows.of(APPEND_RECORD), rows.of(APPEND_POSTING)
        for entry in entries:
            index, parties = entry.index, entry.parties
            owners = self._project_facts(entry, rows, postings)
            touches.add(index, parties, owners)
            records.append(
                (
                    index,
                    entry.entry_id,
                    entry.received_at_ms,
                    entry.tag,
                    entry.author,
                    entry.visibility,
                    b"".join(parties),
                    b"".join(owners),
                )
            )
        return rows

    def _project_facts(self, entry: RecordedEntry, rows: Rows, postings: list[tuple[Value, ...]]) -> Sequence[bytes]:
        """Collect what the facts write; return the owners of the accounts that moved, parties left out."""
        others: dict[bytes, None] = {}
        parties, numbers = entry.parties, self.accounts
        seq = entry.index << POSTING_BITS
        for fact in entry.facts:
            if type(fact) is Posting:
                payer, payee = fact.payer, fact.payee
                if payer not in parties:
                    others[payer] = None
                if payee not in parties:
                    others[payee] = None
                unit, cause = fact.unit, fact.cause
                paying, paid = (payer, unit, fact.payer_purpose), (payee, unit, fact.payee_purpose)
                postings.append(
                    (
                        seq,
                        numbers.get(paying) or self._number(paying, rows),
                        numbers.get(paid) or self._number(paid, rows),
                        fact.amount_minor,
                        None if cause == entry.entry_id else cause,
                        fact.reason,
                    )
                )
                seq += 1
            else:
                projection = self._projections.get(type(fact))
                if projection is not None:
                    projection(fact, entry, rows)
        return tuple(others)

    def _number(self, account: tuple[bytes, str, str], rows: Rows) -> int:
        number = self.accounts[account] = len(self.accounts) + 1
        rows.append(APPEND_ACCOUNT, number, *account)
        return number


def split_ids(joined: bytes) -> list[bytes]:
    """Return the ids of 16 bytes that a column holds joined."""
    return [joined[start : start + ID_BYTES] for start in range(0, len(joined), ID_BYTES)]
