# SPDX-License-Identifier: AGPL-3.0-or-later
"""A cooperative replaces the key of its log: its members' clients follow, on proof.

The board records ``coop.replace_node_key``; the checkpoint that shows this record is signed by the old key and by the
new one. A client that knows the old key checks that signature, that the checkpoint extends all that it has seen of the
log, that the record is in it and names the new key, and that the new key has signed too. Then, and only then, it pins
the new key. Whoever shows another key without this proof is refused (``log_key_changed``).
"""

from typing import Final

from ecot_client.errors import LedgerChanged
from ecot_client.journal import Pin
from ecot_protocol.domains.federation.keys import read_replacement
from ecot_protocol.domains.federation.messages import KeysShown, decode_message
from ecot_protocol.domains.federation.proofs import require_included
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.wire.checkpoint import open_checkpoint
from ecot_protocol.wire.note_key import KeyType, NoteVerifier
from ecot_protocol.wire.witness import AddCheckpointRequest

MAX_STEPS: Final = 64
"""Replacements that are followed at once."""


def read_step(raw: bytes, pin: Pin) -> tuple[Pin, str]:
    """Check one step: replaced keys of the node, under a checkpoint that the pinned key has signed.

    Args:
        raw: the message *keys shown*.
        pin: what is pinned now.

    Returns:
        The pin afterwards, and the checkpoint; whether it extends what was seen before is for `LogMemory`.

    Raises:
        LedgerChanged: ``log_key_changed``: it proves nothing.
    """
    old = NoteVerifier.from_vkey(pin.log_vkey)
    try:
        message = decode_message(raw)
        if not isinstance(message, KeysShown):
            raise RemoteProtocolError("malformed", "expected keys")
        note = AddCheckpointRequest.parse(message.request).note
        opened = open_checkpoint(note, (old,))
        newest, index = old, pin.keys_index
        for one in message.records:
            require_included(one, opened)
            replacement = read_replacement(one.record, pin.ledger)
            if one.index <= index:
                raise RemoteProtocolError("replacement_wrong", "out of order")
            index = one.index
            if replacement.purpose == "log" and replacement.public_key is not None:
                newest = NoteVerifier(pin.origin, KeyType.ED25519, replacement.public_key[1:])
        open_checkpoint(note, (newest,))
    except RemoteProtocolError as error:
        raise LedgerChanged("log_key_changed", str(error), pinned=pin.log_vkey, shown="") from None
    former = pin.former_vkeys if newest == old else (*pin.former_vkeys, pin.log_vkey)
    followed = Pin(pin.ledger, pin.origin, newest.vkey, index, former)
    return followed, note.format().decode()
