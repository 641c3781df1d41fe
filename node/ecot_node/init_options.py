# SPDX-License-Identifier: AGPL-3.0-or-later
"""What `ecot-node init` is told, read strictly."""

from pathlib import Path

import msgspec

from ecot_node.config import ConfigError
from ecot_node.templates import STATUTES
from ecot_protocol.domains.coop.genesis import Founder, Threshold
from ecot_protocol.domains.coop.statutes import Statutes
from ecot_protocol.wire.keys import is_public_key


def parse_founders(options: list[str]) -> tuple[Founder, ...]:
    """Read founders.

    Args:
        options: ``HANDLE=PUBLIC_KEY[:OFFICE,...]``; without offices: the board.

    Raises:
        ConfigError: one of them has another form.

    >>> key = "01" + "00" * 32
    >>> parse_founders([f"claire={key}:board,treasurer"])[0].offices
    ('board', 'treasurer')
    """
    founders = []
    for option in options:
        handle, _, rest = option.partition("=")
        public_key, _, offices = rest.partition(":")
        try:
            raw = bytes.fromhex(public_key)
        except ValueError:
            raw = b""
        if not handle or not is_public_key(raw):
            raise ConfigError(f"--board {option}: expected HANDLE=PUBLIC_KEY[:OFFICE,OFFICE], 66 hexadecimal digits")
        founders.append(Founder(handle=handle, offices=tuple((offices or "board").split(",")), public_key=raw))
    return tuple(founders)


def thresholds(founders: tuple[Founder, ...], board_threshold: int) -> tuple[Threshold, ...]:
    """Return the thresholds of all offices: the board's as given, one signature for every other.

    Raises:
        ConfigError: the board is smaller than its threshold.
    """
    offices = sorted({office for founder in founders for office in founder.offices})
    board_count = sum("board" in founder.offices for founder in founders)
    if not 1 <= board_threshold <= board_count:
        raise ConfigError(f"--threshold {board_threshold}: expected 1..{board_count}, the size of the board")
    return tuple(Threshold(count=board_threshold if office == "board" else 1, office=office) for office in offices)


def parse_statutes(template: str, path: Path | None) -> Statutes:
    """Return the statutes of a template, or those of a JSON file.

    Raises:
        ConfigError: no such template, or the file is not statutes.
    """
    if path is not None:
        try:
            return msgspec.json.decode(path.read_bytes(), type=Statutes)
        except (msgspec.DecodeError, OSError) as error:
            raise ConfigError(f"{path}: {error}") from error
    if template not in STATUTES:
        raise ConfigError(f"--template {template}: expected one of {', '.join(STATUTES)}")
    return STATUTES[template]()
