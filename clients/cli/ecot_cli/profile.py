# SPDX-License-Identifier: AGPL-3.0-or-later
"""A profile: one person's keys and state with one cooperative, in one folder.

    $ECOT_HOME/<profile>/profile.json     address of the node, member acted for
    $ECOT_HOME/<profile>/keys             encrypted keys
    $ECOT_HOME/<profile>/state/           journal: entries on their way, receipts, checkpoints

Without ``ECOT_HOME`` the folder is the one that the system gives to programs' data.
"""

import os
from pathlib import Path

import msgspec
import platformdirs

from ecot_cli.errors import UsageProblem


class Settings(msgspec.Struct, kw_only=True):
    """What a profile remembers.

    Attributes:
        node: address of the cooperative's node.
        member: id (hex) of the member acted for where the person acts for several.
    """

    node: str | None = None
    member: str | None = None


class Profile:
    """The profile called `name`."""

    def __init__(self, name: str = "default") -> None:
        if not name or "/" in name or name.startswith("."):
            raise UsageProblem("profile_name_malformed", name=name)
        self.folder = home() / name
        self.keys_path = self.folder / "keys"
        self.state_dir = self.folder / "state"

    def settings(self) -> Settings:
        """Return what was saved, or nothing yet.

        Raises:
            UsageProblem: ``profile_malformed``.
        """
        path = self.folder / "profile.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=Settings)
        except FileNotFoundError:
            return Settings()
        except msgspec.MsgspecError as error:
            raise UsageProblem("profile_malformed", str(error), path=str(path)) from None

    def save(self, settings: Settings) -> None:
        """Remember the settings."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        beside = self.folder / "profile.json.new"
        beside.write_bytes(msgspec.json.format(msgspec.json.encode(settings)) + b"\n")
        beside.replace(self.folder / "profile.json")


def home() -> Path:
    """Return the folder of all profiles."""
    chosen = os.environ.get("ECOT_HOME")
    return Path(chosen) if chosen else Path(platformdirs.user_data_dir("ecot", appauthor=False))
