# SPDX-License-Identifier: AGPL-3.0-or-later
"""Commands as values: a function, its name, and texts from the catalogues.

A command is ``async def name(run: Run, ...)`` whose parameters are declared with `argument` and `option`; their help is
a key of the locale, translated when the application is built for a language. Every command also takes `COMMON`.
"""

import asyncio
import copy
import inspect
import typing
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from ecot_cli.errors import ExitCode, exit_code_of
from ecot_cli.run import Options, Run
from ecot_protocol.errors import EcotError
from ecot_protocol.locale import choose_locale, translate

CommandFunction = Callable[..., Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Command:
    """One command.

    Attributes:
        path: words that call it, e.g. ``trade propose``; its help is ``cli.help.trade_propose``.
        function: what it does.
    """

    path: str
    function: CommandFunction

    @property
    def help_key(self) -> str:
        """Key of its help."""
        return "cli.help." + self.path.replace(" ", "_").replace("-", "_")


def argument(name: str, **settings: Any) -> Any:
    """Declare an argument whose help is ``cli.option.<name>``."""
    return typer.Argument(help=f"cli.option.{name}", **settings)


def option(flag: str, name: str, **settings: Any) -> Any:
    """Declare an option whose help is ``cli.option.<name>``."""
    return typer.Option(flag, help=f"cli.option.{name}", **settings)


COMMON: Final[dict[str, tuple[Any, Any]]] = {
    "is_json": (Annotated[bool, option("--json", "json")], False),
    "lang": (Annotated[str | None, option("--lang", "lang")], None),
    "profile": (Annotated[str, option("--profile", "profile", envvar="ECOT_PROFILE")], "default"),
    "node": (Annotated[str | None, option("--node", "node")], None),
    "acting_for": (Annotated[str | None, option("--as", "as")], None),
    "key": (Annotated[str | None, option("--key", "key")], None),
    "passphrase_file": (Annotated[Path | None, option("--passphrase-file", "passphrase_file")], None),
}
"""Name -> (type and declaration, default) of what every command takes."""


def build_app(commands: Iterable[Command], locale: str) -> typer.Typer:
    """Build the application in a language."""
    app = typer.Typer(
        help=translate("cli.help.ecot", locale), no_args_is_help=True, pretty_exceptions_enable=False, name="ecot"
    )
    groups: dict[str, typer.Typer] = {}
    for command in commands:
        *group, name = command.path.split(" ")
        target = app
        if group:
            target = groups.setdefault(group[0], _add_group(app, group[0], locale) if group[0] not in groups else app)
        target.command(name, help=translate(command.help_key, locale))(_entry_point(command, locale))
    return app


def _add_group(app: typer.Typer, name: str, locale: str) -> typer.Typer:
    group = typer.Typer(help=translate(f"cli.help.{name}", locale), no_args_is_help=True)
    app.add_typer(group, name=name)
    return group


def _entry_point(command: Command, locale: str) -> Callable[..., None]:
    def call(**values: Any) -> None:
        common = {name: values.pop(name) for name in COMMON}
        lang = common.pop("lang")
        run = Run(Options(**common), choose_locale(lang) if lang else locale)
        raise typer.Exit(execute(run, command.function, values))

    own = list(inspect.signature(command.function).parameters.values())[1:]
    hints = typing.get_type_hints(command.function, include_extras=True)
    parameters = [one.replace(annotation=_translated(hints[one.name], locale)) for one in own]
    parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters]
    for name, (hint, default) in COMMON.items():
        annotation = _translated(hint, locale)
        parameters.append(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        )
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {one.name: one.annotation for one in parameters}
    call.__name__ = command.function.__name__
    return call


def _translated(hint: Any, locale: str) -> Any:
    base, declared = typing.get_args(hint)
    declared = copy.copy(declared)
    declared.help = translate(declared.help, locale)
    return Annotated[base, declared]


def execute(run: Run, function: CommandFunction, values: dict[str, Any]) -> int:
    """Run a command to its exit code; what goes wrong is told on stderr."""
    try:
        asyncio.run(_awaited(function(run, **values)))
    except (EcotError, OSError) as error:
        run.out.error(error)
        return int(exit_code_of(error))
    except KeyboardInterrupt:
        return int(ExitCode.INTERRUPTED)
    return int(ExitCode.DONE)


async def _awaited(command: Awaitable[None]) -> None:
    await command
