# SPDX-License-Identifier: AGPL-3.0-or-later
"""Keys of a person, in one encrypted file.

    {"version": 1, "kdf": "argon2id13", "operations": 3, "memory_bytes": 268435456, "salt": "…", "sealed": "…"}

- ``sealed`` is a libsodium secret box (XSalsa20-Poly1305, nonce first) under Argon2id(passphrase, salt); it holds the
  msgpack of all keys. Nothing about the keys stands outside of it.
- The file has mode 0600 and is refused where group or others can read it.
- It is replaced in one step, so that a crash leaves the old keys or the new ones.

>>> import tempfile
>>> folder = Path(tempfile.mkdtemp())
>>> keys = KeyFile.create(folder / "keys", "correct horse", cost=LIGHT)
>>> daily = keys.make("telephone", "daily", now_ms=0)
>>> KeyFile.open(folder / "keys", "correct horse").find("telephone").signer.key_id == daily.signer.key_id
True
"""

import contextlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec
from nacl import pwhash
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox
from nacl.utils import random as random_bytes

from ecot_client.errors import KeyProblem
from ecot_protocol.wire.keys import SEED_SIZE_BYTES, Signer

VERSION: Final = 1
MAX_FILE_BYTES: Final = 1 << 20
MAX_KEYS: Final = 64
_KDF: Final = "argon2id13"
_OPEN_TO_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO

Purpose = Literal["daily", "recovery"]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a guess at the passphrase costs: passes over, and bytes of, memory."""

    operations: int
    memory_bytes: int


MODERATE: Final = Cost(pwhash.argon2id.OPSLIMIT_MODERATE, pwhash.argon2id.MEMLIMIT_MODERATE)
"""About a second and 256 MiB; what a person's keys are sealed with."""
LIGHT: Final = Cost(pwhash.argon2id.OPSLIMIT_MIN, pwhash.argon2id.MEMLIMIT_MIN)
"""For demonstrations and tests, whose keys protect nothing."""
_DEAREST: Final = Cost(pwhash.argon2id.OPSLIMIT_SENSITIVE, pwhash.argon2id.MEMLIMIT_SENSITIVE)


class StoredKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key of the file.

    Attributes:
        label: chosen by its owner, once in the file.
        made_at_ms: milliseconds since 1970.
        purpose: ``daily``, or ``recovery``: it can only manage keys and veto.
        seed: 32 secret bytes.
    """

    label: str
    made_at_ms: int
    purpose: Purpose
    seed: bytes

    @property
    def signer(self) -> Signer:
        """The key, ready to sign."""
        return Signer(self.seed)

    def __repr__(self) -> str:
        return f"StoredKey({self.label!r}, {self.purpose!r})"


class _Sealed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: int
    kdf: str
    operations: int
    memory_bytes: int
    salt: bytes
    sealed: bytes


_KEYS: Final = msgspec.msgpack.Decoder(tuple[StoredKey, ...])
_FILE: Final = msgspec.json.Decoder(_Sealed)


class KeyFile:
    """An open key file. Made by `create` or `open`.

    Attributes:
        path: of the file.
        keys: in the order in which they were made.
    """

    def __init__(self, path: Path, head: _Sealed, box: SecretBox, keys: tuple[StoredKey, ...]) -> None:
        self.path = path
        self.keys = keys
        self._head = head
        self._box = box

    @classmethod
    def create(cls, path: Path, passphrase: str, *, cost: Cost = MODERATE) -> "KeyFile":
        """Make an empty file; an existing one is never overwritten.

        Raises:
            KeyProblem: ``key_file_exists``, ``key_file_unusable``.
        """
        salt = random_bytes(pwhash.argon2id.SALTBYTES)
        head = _Sealed(
            version=VERSION,
            kdf=_KDF,
            operations=cost.operations,
            memory_bytes=cost.memory_bytes,
            salt=salt,
            sealed=b"",
        )
        made = cls(path, head, _derive(passphrase, head), ())
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # The name is taken first, so that two programs can't both believe that they made the file.
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            raise KeyProblem("key_file_exists", path=str(path)) from None
        except OSError as error:
            raise KeyProblem("key_file_unusable", str(error), path=str(path)) from error
        made._save(())
        return made

    @classmethod
    def open(cls, path: Path, passphrase: str) -> "KeyFile":
        """Open a file.

        Raises:
            KeyProblem: ``key_file_missing``, ``key_file_readable_by_others``, ``key_file_malformed``,
                ``key_file_version_unknown``, ``passphrase_wrong``.
        """
        head = _read(path)
        box = _derive(passphrase, head)
        try:
            keys = _KEYS.decode(box.decrypt(head.sealed))
        except CryptoError:
            raise KeyProblem("passphrase_wrong", path=str(path)) from None
        except msgspec.MsgspecError as error:
            raise KeyProblem("key_file_malformed", str(error), path=str(path)) from None
        return cls(path, head, box, keys)

    def make(self, label: str, purpose: Purpose, *, now_ms: int) -> StoredKey:
        """Make a key from the system's randomness, and save it before it is used anywhere.

        Raises:
            KeyProblem: ``key_label_taken``, ``keys_full``, ``key_file_unusable``.
        """
        seed = os.urandom(SEED_SIZE_BYTES)
        return self.add(StoredKey(label=label, made_at_ms=now_ms, purpose=purpose, seed=seed))

    def add(self, key: StoredKey) -> StoredKey:
        """Take in a key that was made elsewhere; see `make` for the errors."""
        if any(one.label == key.label for one in self.keys):
            raise KeyProblem("key_label_taken", label=key.label)
        if len(self.keys) >= MAX_KEYS:
            raise KeyProblem("keys_full", maximum=MAX_KEYS)
        self._save((*self.keys, key))
        return key

    def find(self, name: str) -> StoredKey:
        """Return the key with this label, or whose id begins with these hex digits (at least 8).

        Raises:
            KeyProblem: ``key_not_found``.
        """
        for key in self.keys:
            if key.label == name or (len(name) >= 8 and key.signer.key_id.hex().startswith(name.lower())):
                return key
        raise KeyProblem("key_not_found", label=name)

    def signers(self, purpose: Purpose = "daily") -> tuple[Signer, ...]:
        """Return all keys of a purpose, oldest first."""
        return tuple(key.signer for key in self.keys if key.purpose == purpose)

    def _save(self, keys: tuple[StoredKey, ...]) -> None:
        sealed = bytes(self._box.encrypt(msgspec.msgpack.encode(keys)))
        head = msgspec.structs.replace(self._head, sealed=sealed)
        _replace(self.path, msgspec.json.encode(head))
        self._head, self.keys = head, keys


def _derive(passphrase: str, head: _Sealed) -> SecretBox:
    key = pwhash.argon2id.kdf(
        SecretBox.KEY_SIZE, passphrase.encode(), head.salt, opslimit=head.operations, memlimit=head.memory_bytes
    )
    return SecretBox(key)


def _read(path: Path) -> _Sealed:
    try:
        # The mode is asked of the open file, not of its name, which somebody could exchange in between.
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & _OPEN_TO_OTHERS:
                raise KeyProblem("key_file_readable_by_others", "expected mode 0600", path=str(path))
            raw = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise KeyProblem("key_file_missing", path=str(path)) from None
    except OSError as error:
        raise KeyProblem("key_file_unusable", str(error), path=str(path)) from error
    try:
        head = _FILE.decode(raw)
    except msgspec.MsgspecError as error:
        raise KeyProblem("key_file_malformed", str(error), path=str(path)) from None
    if head.version != VERSION or head.kdf != _KDF:
        raise KeyProblem("key_file_version_unknown", path=str(path), version=head.version)
    if not _is_cost_sound(head):
        raise KeyProblem("key_file_malformed", "cost or salt out of range", path=str(path))
    return head


def _is_cost_sound(head: _Sealed) -> bool:
    """A file that came from elsewhere must not make us use all memory."""
    return (
        LIGHT.operations <= head.operations <= _DEAREST.operations
        and LIGHT.memory_bytes <= head.memory_bytes <= _DEAREST.memory_bytes
        and len(head.salt) == pwhash.argon2id.SALTBYTES
    )


def _replace(path: Path, content: bytes) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()
        with os.fdopen(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise KeyProblem("key_file_unusable", str(error), path=str(path)) from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
