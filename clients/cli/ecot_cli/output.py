# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a command says: one JSON document, or text and tables in the reader's language. Errors go to stderr."""

import re
import sys
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ecot_cli.amounts import format_instant
from ecot_cli.errors import code_of
from ecot_client.errors import ClientError, NodeProblem
from ecot_protocol.errors import EcotError, RemoteProtocolError
from ecot_protocol.locale import translate

_UNSEEN: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Characters that move the cursor, colour, or turn round what is read: somebody else's name or memo must not make a
terminal show what it does not say.
"""


def show_text(text: str) -> str:
    r"""Return a text that is safe to write to a terminal.

    >>> show_text("Ada\x1b[2J\u202e"), show_text("two\nlines")
    ('Ada�[2J�', 'two\nlines')
    """
    return escape(_UNSEEN.sub("\ufffd", text))


_DURATIONS: Final = frozenset(("maximum_ms", "minimum_ms"))
"""Parameters of reasons in milliseconds that are no instants."""


class Output:
    """Where a command writes.

    Args:
        locale: of the texts.
        is_json: write JSON instead of text.
    """

    def __init__(self, locale: str, *, is_json: bool) -> None:
        self.locale = locale
        self.is_json = is_json
        self._out = Console(highlight=False)
        self._err = Console(stderr=True, highlight=False)

    def text(self, key: str, **params: object) -> str:
        """Return the text ``cli.<key>``."""
        return translate(f"cli.{key}", self.locale, **params)

    def json(self, value: object) -> bool:
        """Write the result, if JSON is asked for; tell whether it was."""
        if self.is_json:
            built = msgspec.to_builtins(value)
            sys.stdout.write(msgspec.json.encode(built).decode() + "\n")
        return self.is_json

    def word(self, group: str, code: str) -> str:
        """Return the text of a code: ``cli.<group>.<code>``, else ``<group>.<code>``, else the code itself."""
        for key in (f"cli.{group}.{code}", f"{group}.{code}"):
            text = translate(key, self.locale)
            if text != key:
                return text
        return code

    def say(self, key: str, **params: object) -> None:
        """Write the text ``cli.say.<key>``."""
        self._out.print(show_text(self.text(f"say.{key}", **params)), soft_wrap=True)

    def plain(self, text: str) -> None:
        """Write text as it stands."""
        self._out.print(show_text(text), soft_wrap=True)

    def note(self, key: str, **params: object) -> None:
        """Write the text ``cli.say.<key>`` beside the result, to stderr."""
        self._err.print(show_text(self.text(f"say.{key}", **params)), soft_wrap=True)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Write a table.

        Args:
            columns: names of texts ``cli.column.<name>``; one that ends with ``>`` is aligned right.
            rows: cells, from left to right; None is empty.
        """
        table = Table(header_style="bold", show_edge=False, pad_edge=False)
        for column in columns:
            is_right = column.endswith(">")
            title = self.text(f"column.{column.rstrip('>')}")
            table.add_column(title, justify="right" if is_right else "left", overflow="fold")
        count = 0
        for count, row in enumerate(rows, start=1):  # noqa: B007
            table.add_row(*("" if cell is None else show_text(str(cell)) for cell in row))
        if count:
            self._out.print(table)
        else:
            self.say("nothing_to_show")

    def error(self, error: EcotError | OSError) -> None:
        """Write an error, with its stable code, to stderr."""
        code, title = code_of(error), self.title_of(error)
        if self.is_json:
            params = getattr(error, "params", {})
            shown = {"code": code, "title": title, "params": {name: _plain(value) for name, value in params.items()}}
            sys.stderr.write(msgspec.json.encode({"error": shown}).decode() + "\n")
        else:
            self._err.print(show_text(f"{title} [{code}]"), soft_wrap=True)

    def title_of(self, error: EcotError | OSError) -> str:
        """Return the text of an error; where this release has none, the node's own, or what was raised."""
        code = code_of(error)
        raw = getattr(error, "params", {}) if isinstance(error, ClientError | RemoteProtocolError) else {}
        params = {name: self._readable(name, value) for name, value in raw.items()}
        for key in (f"cli.error.{code}", f"reason.{code}"):
            text = translate(key, self.locale, **params)
            if text != key:
                return text
        return (error.title if isinstance(error, NodeProblem) else "") or str(error)

    def _readable(self, name: str, value: object) -> object:
        """Write instants as people do; what else there is stays as it is."""
        is_instant = isinstance(value, int) and name.endswith("_ms") and name not in _DURATIONS
        return format_instant(int(str(value)), self.locale) if is_instant else value


def _plain(value: object) -> str | int | bool | None:
    return value if isinstance(value, str | int | bool | None) else str(value)
