# SPDX-License-Identifier: AGPL-3.0-or-later
"""Coverage-guided fuzzing of everything that decodes bytes from outside.

A program, for libFuzzer keeps its process: ``python tests/protocol/fuzz_decoders.py -max_total_time=600 CORPUS``.
`test_machine_fuzz.py` runs it for some seconds. A byte chooses the decoder, the rest is decoded: refused with
`RemoteProtocolError`, or encoded again to the same bytes; anything else is a crash, which libFuzzer writes down.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import atheris

sys.path[:0] = [str(Path(__file__).parents[1] / "kit"), str(Path(__file__).parents[2] / "protocol")]

with atheris.instrument_imports(include=["ecot_protocol"]):
    from ecot_protocol.errors import RemoteProtocolError
    from ecot_protocol.machine import ENTRY_TYPES, Machine
    from ecot_protocol.state import State
    from ecot_protocol.wire.encoding import Codec, encode
    from ecot_protocol.wire.entry import BODY, ENTRIES, decode_entry, decode_record
    from ecot_protocol.wire.reply import REPLY
    from ecot_protocol.wire.statement import decode_statement

MACHINE = Machine()


def _admit(raw: bytes) -> None:
    """Admit an entry of one signature whose body is fuzzed."""
    entry = decode_entry(raw)
    MACHINE.admit(entry, 1)
    assert encode(entry) == raw


def _replay(raw: bytes) -> None:
    """Replay a record on an empty state: only a genesis could pass."""
    MACHINE.replay(State(), decode_record(raw))


def _load(raw: bytes) -> None:
    State.load(iter([("coop.profile", b"\xa0", raw)]))


def _recode(decode: Callable[[bytes], Any]) -> Callable[[bytes], None]:
    def check(raw: bytes) -> None:
        assert encode(decode(raw)) == raw

    return check


CODECS: list[Codec[Any]] = [BODY, ENTRIES, REPLY, *(one.codec for one in ENTRY_TYPES)]
TARGETS: list[Callable[[bytes], None]] = [
    _admit,
    _replay,
    _load,
    _recode(decode_record),
    _recode(decode_statement),
    *(_recode(codec.decode) for codec in CODECS),
]


def run_one(raw: bytes) -> None:
    """Decode the bytes with the decoder that the first of them names."""
    if not raw:
        return
    try:
        TARGETS[raw[0] % len(TARGETS)](raw[1:])
    except RemoteProtocolError:
        return


def write_corpus(folder: Path) -> None:
    """Write the story's entries and records as first inputs."""
    from story_kit import tell

    from ecot_protocol.wire.entry import BODY as BODY_CODEC

    kit = tell()
    tags = [one.tag for one in ENTRY_TYPES]
    for number, (entry, record) in enumerate(zip(kit.sent, kit.records, strict=True)):
        body = BODY_CODEC.decode(entry.body)
        payload = bytes((TARGETS.index(TARGETS[5 + 3 + tags.index(body.type)]),)) + bytes(body.payload)
        for name, raw in (("entry", b"\x00" + encode(entry)), ("record", b"\x01" + record), ("payload", payload)):
            (folder / f"{name}-{number}").write_bytes(raw)


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "--write-corpus":
        write_corpus(Path(sys.argv[2]))
    else:
        atheris.Setup(sys.argv, run_one)
        atheris.Fuzz()
