# SPDX-License-Identifier: AGPL-3.0-or-later
r"""Signed notes: a text and the signatures of one or more keys under it.

    If you think cryptography is the answer to your problem,
    then you don't know what your problem is.

    — PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=

Rules:

- UTF-8, no ASCII control character but newline; the text ends with a newline and may contain empty lines: the last
  empty line of the note ends it.
- A signature line is em dash, space, name, space, base64(key id, 4 bytes || signature), newline. Limits: 64 KiB for the
  whole note, 1 to 100 signatures.
- To open a note is to check it against known keys. Unknown keys are ignored ("MUST ignore"), even those that share a
  name or an id, but not both, with a known one. One wrong signature of a known key refuses the whole note, and so
  does the lack of any good one.

>>> signer = NoteSigner("coop.example/ecot", bytes(32))
>>> raw = sign_note("hello\n", "coop.example/ecot", bytes(32)).format()
>>> print(raw.decode()[:35])
hello
<BLANKLINE>
— coop.example/ecot cedf2L0j
>>> open_note(raw, [signer.verifier]).text
'hello\n'
>>> open_note(raw.replace(b"hello", b"hallo"), [signer.verifier])
Traceback (most recent call last):
...
ecot_protocol.errors.RemoteProtocolError: note_signature_wrong: signature of coop.example/ecot+71e75fd8

Source: C2SP signed-note.md.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from nacl.signing import SigningKey

from ecot_protocol.errors import LocalProtocolError, RemoteProtocolError
from ecot_protocol.wire.lines import decode_base64, encode_base64, shown
from ecot_protocol.wire.note_key import KEY_ID_BYTES, KeyType, NoteVerifier, is_key_name, vkey

__all__ = [
    "MAX_NOTE_BYTES",
    "MAX_SIGNATURES",
    "KeyType",
    "NoteSignature",
    "NoteSigner",
    "NoteVerifier",
    "OpenedNote",
    "SignedNote",
    "format_signatures",
    "open_note",
    "parse_signatures",
    "sign_note",
    "vkey",
]

MAX_NOTE_BYTES: Final = 65_536
MAX_SIGNATURES: Final = 100
SEED_BYTES: Final = 32
_MALFORMED: Final = "note_malformed"
_DASH: Final = "\u2014 "


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line.

    Attributes:
        name: name of the key.
        key_id: 4 bytes.
        signature: 1 byte or more; for a cosignature it begins with the timestamp.

    Raises:
        LocalProtocolError: a field has not this form.
    """

    name: str
    key_id: bytes
    signature: bytes

    def __post_init__(self) -> None:
        if not is_key_name(self.name) or len(self.key_id) != KEY_ID_BYTES or not self.signature:
            raise LocalProtocolError(
                f"signature of {shown(self.name)}: expected a name, {KEY_ID_BYTES} bytes, 1 or more"
            )

    def format(self) -> str:
        """Write the line, newline included."""
        return f"{_DASH}{self.name} {encode_base64(self.key_id + self.signature)}\n"

    @classmethod
    def parse(cls, line: str) -> "NoteSignature":
        """Read the line, given without its newline.

        Raises:
            RemoteProtocolError: `note_malformed`.
        """
        name, space, encoded = line.removeprefix(_DASH).partition(" ")
        if not line.startswith(_DASH) or not space or not is_key_name(name):
            raise RemoteProtocolError(_MALFORMED, f"expected a signature line, got {shown(line)}")
        raw = decode_base64(encoded, _MALFORMED)
        if len(raw) <= KEY_ID_BYTES:
            raise RemoteProtocolError(_MALFORMED, f"signature of {len(raw)} bytes: expected {KEY_ID_BYTES + 1} or more")
        return cls(name, raw[:KEY_ID_BYTES], raw[KEY_ID_BYTES:])


def format_signatures(signatures: Iterable[NoteSignature]) -> bytes:
    """Write signature lines, as they end a note and as a witness answers them."""
    return "".join(signature.format() for signature in signatures).encode()


def parse_signatures(raw: bytes) -> tuple[NoteSignature, ...]:
    """Read 1 to 100 signature lines, each ended by a newline, in at most 64 KiB.

    Raises:
        RemoteProtocolError: `note_too_large`, `note_malformed`.
    """
    return _parse_lines(_decode(raw))


@dataclass(frozen=True, slots=True)
class SignedNote:
    """A note as it is written; nothing in it may be believed before `open_note`.

    Attributes:
        text: with its final newline, without the empty line that follows.
        signatures: in the order of their lines; none only while it is being signed.
    """

    text: str
    signatures: tuple[NoteSignature, ...]

    def format(self) -> bytes:
        """Write the note.

        Raises:
            LocalProtocolError: what results is not a note: a control character, no final newline, no signature, too
            large.
        """
        raw = f"{self.text}\n".encode("utf-8", "surrogatepass") + format_signatures(self.signatures)
        try:
            again = SignedNote.parse(raw)
        except RemoteProtocolError as error:
            raise LocalProtocolError(str(error)) from None
        if again != self:
            raise LocalProtocolError("the note would not be read as it was meant")
        return raw

    @classmethod
    def parse(cls, raw: bytes) -> "SignedNote":
        """Read a note without checking any signature.

        Raises:
            RemoteProtocolError: `note_too_large`, `note_malformed`.
        """
        head, gap, tail = _decode(raw).rpartition("\n\n")
        if not gap:
            raise RemoteProtocolError(_MALFORMED, "expected a text, an empty line and signatures")
        return cls(head + "\n", _parse_lines(tail))

    def with_signatures(self, signatures: Iterable[NoteSignature]) -> "SignedNote":
        """Add signatures, e.g. cosignatures; those already there are not repeated."""
        return SignedNote(self.text, tuple(dict.fromkeys((*self.signatures, *signatures))))


def _decode(raw: bytes) -> str:
    if len(raw) > MAX_NOTE_BYTES:
        raise RemoteProtocolError("note_too_large", f"expected at most {MAX_NOTE_BYTES} bytes, got {len(raw)}")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise RemoteProtocolError(_MALFORMED, "not UTF-8") from None
    if any(character < " " and character != "\n" for character in set(text)):
        raise RemoteProtocolError(_MALFORMED, "a control character other than newline")
    return text


def _parse_lines(text: str) -> tuple[NoteSignature, ...]:
    *lines, rest = text.split("\n")
    if rest or not 1 <= len(lines) <= MAX_SIGNATURES:
        raise RemoteProtocolError(_MALFORMED, f"expected 1..{MAX_SIGNATURES} signature lines, each ended by a newline")
    return tuple(NoteSignature.parse(line) for line in lines)


class NoteSigner:
    """An Ed25519 key that signs notes, parsed once.

    Args:
        name: name of the key; for a log, its origin.
        seed: 32 bytes, secret.

    Attributes:
        verifier: its public half.

    Raises:
        LocalProtocolError: the name is not allowed or the seed has another length.
    """

    __slots__ = ("_key", "verifier")

    def __init__(self, name: str, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise LocalProtocolError(f"seed of {len(seed)} bytes: expected {SEED_BYTES}")
        self._key = SigningKey(seed)
        self.verifier = NoteVerifier(name, KeyType.ED25519, bytes(self._key.verify_key))

    def sign(self, text: str) -> NoteSignature:
        """Sign the text of a note, final newline included."""
        signature = self._key.sign(text.encode()).signature
        return NoteSignature(self.verifier.name, self.verifier.key_id, signature)


def sign_note(text: str, name: str, seed: bytes) -> SignedNote:
    """Make a note with one Ed25519 signature; see `NoteSigner` for many."""
    return SignedNote(text, (NoteSigner(name, seed).sign(text),))


@dataclass(frozen=True, slots=True)
class OpenedNote:
    """A note whose known signatures have all been checked, of which there is at least one.

    Attributes:
        text: may be believed as far as the keys in `verified` are.
        verified: known keys with their good signatures, in the order of the lines.
        unknown: signatures of keys that we do not know: they say nothing.
    """

    text: str
    verified: tuple[tuple[NoteVerifier, NoteSignature], ...]
    unknown: tuple[NoteSignature, ...]


def open_note(raw: bytes | SignedNote, verifiers: Iterable[NoteVerifier]) -> OpenedNote:
    """Check a note against the keys that we know.

    Args:
        raw: the note, as bytes or already read.
        verifiers: known keys; the same key may come twice.

    Raises:
        RemoteProtocolError: `note_too_large`, `note_malformed`; `note_signature_wrong`: a known key's signature fails;
            `note_unsigned`: no known key has signed; `note_keys_ambiguous`: two different known keys share name and id.
    """
    note = raw if isinstance(raw, SignedNote) else SignedNote.parse(raw)
    known = _by_name_and_id(verifiers)
    verified, unknown = [], []
    for signature in note.signatures:
        verifier = known.get((signature.name, signature.key_id))
        if verifier is None or not verifier.is_supported:
            unknown.append(signature)
        elif verifier.verify(note.text, signature.signature):
            verified.append((verifier, signature))
        else:
            detail = f"signature of {verifier.name}+{verifier.key_id.hex()}"
            raise RemoteProtocolError("note_signature_wrong", detail, name=verifier.name)
    if not verified:
        raise RemoteProtocolError("note_unsigned", f"none of {len(known)} known keys has signed")
    return OpenedNote(note.text, tuple(verified), tuple(unknown))


def _by_name_and_id(verifiers: Iterable[NoteVerifier]) -> dict[tuple[str, bytes], NoteVerifier]:
    known: dict[tuple[str, bytes], NoteVerifier] = {}
    for verifier in verifiers:
        if known.setdefault((verifier.name, verifier.key_id), verifier) != verifier:
            detail = f"two keys for {verifier.name}+{verifier.key_id.hex()}"
            raise RemoteProtocolError("note_keys_ambiguous", detail, name=verifier.name)
    return known
