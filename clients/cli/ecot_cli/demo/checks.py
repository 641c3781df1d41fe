# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the demo claims, each claim checked and shown; it ends well if and only if every one held."""

from rich.console import Console

from ecot_client.errors import ClientError
from ecot_protocol.locale import translate


class Teller:
    """Tells the story in the user's language and keeps the checks.

    Args:
        console: where it is told.
        locale: language of the texts ``demo.*``.
    """

    def __init__(self, console: Console, locale: str) -> None:
        self.console, self.locale = console, locale
        self.failed: list[str] = []
        self.held = 0

    def text(self, key: str, **params: object) -> str:
        """Return a text of the demo."""
        return translate(f"demo.{key}", self.locale, **params)

    def step(self, key: str, **params: object) -> None:
        """Begin a step."""
        self.console.print(f"\n[bold]{self.text(key, **params)}[/bold]")

    def tell(self, key: str, **params: object) -> None:
        """Tell one line."""
        self.console.print(f"  {self.text(key, **params)}", highlight=False)

    def check(self, key: str, is_held: bool, **params: object) -> None:
        """Check one claim and tell it."""
        text = self.text(key, **params)
        if is_held:
            self.held += 1
            self.console.print(f"  [green]✓[/green] {text}", highlight=False)
        else:
            self.failed.append(text)
            self.console.print(f"  [red]✗ {text}[/red]", highlight=False)

    def check_equal(self, key: str, found: object, expected: object, **params: object) -> None:
        """Check that what was found is what was expected."""
        self.check(key, found == expected, found=found, expected=expected, **params)


class DemoFailed(ClientError):
    """A check of the demo did not hold."""
