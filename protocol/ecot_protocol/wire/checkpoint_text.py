# SPDX-License-Identifier: AGPL-3.0-or-later
r"""The text of a checkpoint: which log, how many entries, which root. `checkpoint` signs and opens it.

Three lines, each ended by a newline, then extension lines that are kept but mean nothing to us:

    example.com/behind-the-sofa
    20852163
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

Rules:

- The origin is not empty and has no control character; at most 1,024 bytes.
- The size is decimal without leading zeros, at most 2**63 - 1; the root is base64 of 32 bytes.
- Extension lines are not empty. We never write one ("NOT RECOMMENDED, as they are not auditable").

>>> text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
>>> checkpoint = Checkpoint.parse(text)
>>> checkpoint.origin, checkpoint.size, checkpoint.root_hash.hex()[:8]
('example.com/behind-the-sofa', 20852163, '0ac5186a')
>>> checkpoint.format() == text
True

Source: C2SP tlog-checkpoint.md, "Note text".
"""

from dataclasses import dataclass
from typing import Final

from ecot_protocol.errors import LocalProtocolError, RemoteProtocolError
from ecot_protocol.wire.lines import decode_hash, encode_base64, parse_decimal
from ecot_protocol.wire.merkle_hash import HASH_BYTES, MAX_SIZE

MAX_ORIGIN_BYTES: Final = 1_024
MAX_EXTENSION_LINES: Final = 64
_MALFORMED: Final = "checkpoint_malformed"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The head of a log at one size.

    Attributes:
        origin: unique name of the log, e.g. `barter.example/ecot/0123456789abcdef`.
        size: count of entries, 0..2**63-1.
        root_hash: 32 bytes, the root of the Merkle tree over them.
        extensions: further lines, opaque; empty in all that we write.

    Raises:
        LocalProtocolError: a field has not the form above.
    """

    origin: str
    size: int
    root_hash: bytes
    extensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if reason := _fault(self):
            raise LocalProtocolError(reason)

    def format(self) -> str:
        """Write the note text, final newline included."""
        lines = (self.origin, str(self.size), encode_base64(self.root_hash), *self.extensions)
        return "".join(f"{line}\n" for line in lines)

    @classmethod
    def parse(cls, text: str) -> "Checkpoint":
        """Read the text of a note as a checkpoint.

        Raises:
            RemoteProtocolError: `checkpoint_malformed`.
        """
        lines = text.split("\n")
        if len(lines) < 4 or lines.pop() != "":
            raise RemoteProtocolError(_MALFORMED, "expected three lines or more, each ended by a newline")
        size = parse_decimal(lines[1], _MALFORMED)
        root_hash = decode_hash(lines[2], _MALFORMED)
        try:
            return cls(lines[0], size, root_hash, tuple(lines[3:]))
        except LocalProtocolError as error:
            raise RemoteProtocolError(_MALFORMED, str(error)) from None


def _fault(checkpoint: Checkpoint) -> str | None:
    """Say what is wrong with the fields, if anything."""
    for line in (checkpoint.origin, *checkpoint.extensions):
        if not is_clean(line):
            return "origin and extension lines: expected text without control characters, not empty"
    if len(checkpoint.origin.encode()) > MAX_ORIGIN_BYTES:
        return f"origin: expected at most {MAX_ORIGIN_BYTES} bytes"
    if len(checkpoint.extensions) > MAX_EXTENSION_LINES:
        return f"expected at most {MAX_EXTENSION_LINES} extension lines, got {len(checkpoint.extensions)}"
    if not 0 <= checkpoint.size <= MAX_SIZE:
        return f"size: expected 0..{MAX_SIZE}, got {checkpoint.size}"
    if len(checkpoint.root_hash) != HASH_BYTES:
        return f"root hash: expected {HASH_BYTES} bytes, got {len(checkpoint.root_hash)}"
    return None


def is_clean(line: str) -> bool:
    """Tell whether a line is not empty, has no ASCII control character and can be written in UTF-8."""
    if not line or min(line) < " ":
        return False
    return not any("\ud800" <= character <= "\udfff" for character in line)
