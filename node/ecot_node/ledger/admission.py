# SPDX-License-Identifier: AGPL-3.0-or-later
"""Admission: from entries as posted to submissions whose form is right and whose signatures are checked.

Evidence is not looked at here, where anybody can send anything: an unsigned entry of 10 kB can carry proofs that take
4 ms. The group looks at it once it is clear that who signed may sign.

Nothing here waits for the writer, and nothing here reads more of the state than public keys and the rules number.
"""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from ecot_node.ledger.signatures import SignatureChecker, SignedItem, verify_signatures
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.machine import Machine, Submission, public_keys
from ecot_protocol.state import State
from ecot_protocol.wire.entry import ENTRY_CONTEXT, Entry, require_sorted
from ecot_protocol.wire.reply import Refused

MAX_DETAIL_CHARACTERS: Final = 200


class Admitted(msgspec.Struct):
    """A submission on its way to the writer.

    Attributes:
        submission: of the right form.
        are_signatures_good: None if a key was not known yet (it may be introduced by an entry ahead in the queue): the
            writer looks again.
    """

    submission: Submission
    are_signatures_good: bool | None


def refusal(error: RemoteProtocolError) -> Refused:
    """Return the outcome of an entry that is malformed by itself."""
    return Refused(error.code, (("detail", error.detail[:MAX_DETAIL_CHARACTERS]),) if error.detail else ())


def admit(machine: Machine, entries: Sequence[Entry], rules: int) -> list[Admitted | Refused]:
    """Check the form of each entry on its own."""
    result: list[Admitted | Refused] = []
    for entry in entries:
        try:
            require_sorted(entry.signatures)
            result.append(Admitted(machine.admit(entry, rules), None))
        except RemoteProtocolError as error:
            result.append(refusal(error))
    return result


async def check_signatures(admitted: Sequence[Admitted], state: State, checker: SignatureChecker) -> None:
    """Check the signatures of many submissions, in the workers if they are worth it; sets `are_signatures_good`."""
    items: list[SignedItem] = []
    find = public_keys(state)
    counts = [_collect(one.submission, find, items) for one in admitted]
    good = await checker.check(items) if checker.is_worth_a_worker(len(items)) else verify_signatures(items)
    start = 0
    for one, count in zip(admitted, counts, strict=True):
        if count is not None:
            one.are_signatures_good = 0 not in good[start : start + count]
            start += count


def _collect(submission: Submission, find: Callable[[bytes], bytes | None], items: list[SignedItem]) -> int | None:
    """Append the submission's signatures to `items` and return how many; None if one of its keys is not known."""
    message = ENTRY_CONTEXT + submission.entry.body
    found: list[SignedItem] = []
    for signature, public_key in submission.resolve_keys(find):
        if public_key is None:
            return None
        found.append((public_key, message, signature.signature))
    items.extend(found)
    return len(found)
