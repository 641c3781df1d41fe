# SPDX-License-Identifier: AGPL-3.0-or-later
r"""Read the pieces that the C2SP text formats share: base64, decimal numbers, lines.

Rules: one spelling for each value. Base64 is RFC 4648 section 4 with padding, no space and zero unused bits; a number
is ASCII decimal with no sign and no leading zero. Everything else is `RemoteProtocolError` with the code of the
format read.

>>> decode_base64("AQI=", "checkpoint_malformed")
b'\x01\x02'
>>> parse_decimal("20852163", "checkpoint_malformed")
20852163
"""

import re
from base64 import b64decode, b64encode
from typing import Final

from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.wire.merkle_hash import HASH_BYTES, MAX_SIZE

_DECIMAL: Final = re.compile(r"0|[1-9][0-9]{0,18}")
_SHOWN_CHARACTERS: Final = 40


def shown(text: str) -> str:
    """Quote the beginning of a foreign text for an error message."""
    return ascii(text[:_SHOWN_CHARACTERS])


def encode_base64(raw: bytes) -> str:
    """Write base64 with padding."""
    return b64encode(raw).decode("ascii")


def decode_base64(text: str, code: str) -> bytes:
    """Read base64, accepting only what `encode_base64` writes.

    Raises:
        RemoteProtocolError: `code`.
    """
    try:
        raw = b64decode(text.encode("ascii"), validate=True)
    except ValueError:  # includes UnicodeEncodeError and binascii.Error
        raise RemoteProtocolError(code, f"expected base64, got {shown(text)}") from None
    if encode_base64(raw) != text:
        raise RemoteProtocolError(code, f"base64 is not canonical: {shown(text)}")
    return raw


def decode_hash(text: str, code: str) -> bytes:
    """Read the base64 of one SHA-256 hash, 32 bytes.

    Raises:
        RemoteProtocolError: `code`.
    """
    raw = decode_base64(text, code)
    if len(raw) != HASH_BYTES:
        raise RemoteProtocolError(code, f"expected a hash of {HASH_BYTES} bytes, got {len(raw)}")
    return raw


def parse_decimal(text: str, code: str, maximum: int = MAX_SIZE) -> int:
    """Read a decimal number from 0 to `maximum`.

    Raises:
        RemoteProtocolError: `code`.
    """
    if not _DECIMAL.fullmatch(text) or int(text) > maximum:
        raise RemoteProtocolError(code, f"expected a decimal number up to {maximum}, got {shown(text)}")
    return int(text)


def parse_keyed_line(line: str, key: str, code: str) -> str:
    """Read the value of a line `<key> <value>`.

    Raises:
        RemoteProtocolError: `code`.
    """
    if not line.startswith(f"{key} "):
        raise RemoteProtocolError(code, f"expected a line '{key} ...', got {shown(line)}")
    return line[len(key) + 1 :]
