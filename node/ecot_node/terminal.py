# SPDX-License-Identifier: AGPL-3.0-or-later
"""How `ecot-node` speaks to its operator, and with which exit codes it ends."""

import asyncio
import os
import re
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import typer
from rich.console import Console

from ecot_node.config import ConfigError
from ecot_node.ledger.errors import LedgerCorrupt, NotWriting
from ecot_node.ledger.node_keys import KeyProblem
from ecot_node.store.errors import StoreError
from ecot_protocol.errors import EcotError, RemoteProtocolError
from ecot_protocol.locale import translate

EXIT_PROBLEM: Final = 1
EXIT_USAGE: Final = 2
EXIT_CORRUPT: Final = 3
EXIT_IN_USE: Final = 4

console = Console(stderr=True, highlight=False)

Folder = Annotated[Path, typer.Argument(help="data folder of the node / dossier de données du nœud")]


def language() -> str:
    """Return the operator's language, from the environment."""
    return os.environ.get("LC_ALL") or os.environ.get("LC_MESSAGES") or os.environ.get("LANG") or "en"


def say(key: str, **params: object) -> None:
    """Tell the operator something, on standard error; lines are not broken: checkpoints and hashes are copied."""
    console.print(translate(f"node.{key}", language(), **params), markup=False, soft_wrap=True)


def fail(error: EcotError | OSError) -> NoReturn:
    """End with the error's text and exit code."""
    if isinstance(error, LedgerCorrupt):
        say("corrupt", index=error.index, code=error.code, detail=error.detail)
        raise typer.Exit(EXIT_CORRUPT)
    code = _code_of(error)
    what = _text_of(f"node.error_{code}", f"reason.{code}", "node.error_other")
    say("problem", what=what, code=code, detail=str(error).removeprefix(f"{code}: "))
    raise typer.Exit(
        EXIT_IN_USE if code == "store_in_use" else EXIT_USAGE if isinstance(error, ConfigError) else EXIT_PROBLEM
    )


OS_CODES: Final = (
    (FileExistsError, "file_exists"),
    (FileNotFoundError, "file_missing"),
    (PermissionError, "access_denied"),
)
_CAMEL: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")


def _code_of(error: EcotError | OSError) -> str:
    """Return the stable code of an error, such as ``store_in_use``."""
    if isinstance(error, NotWriting):
        return error.reason
    if isinstance(error, OSError):
        return next((code for kind, code in OS_CODES if isinstance(error, kind)), "os_error")
    return str(getattr(error, "code", _CAMEL.sub("_", type(error).__name__).lower()))


def _text_of(*keys: str) -> str:
    """Return the text of the first key that has one."""
    texts = ((key, translate(key, language())) for key in keys)
    return next((text for key, text in texts if text != key), keys[-1])


def shown(value: object) -> str:
    """Return a value as an operator reads it."""
    match value:
        case bool():
            return translate("node.value_yes" if value else "node.value_no", language())
        case None | [] | "":
            return translate("node.value_none", language())
        case list():
            return ", ".join(map(str, value))
        case _:
            return str(value)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine on uvloop and turn expected errors into exit codes."""
    import uvloop

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(work)
    except (StoreError, LedgerCorrupt, KeyProblem, ConfigError, NotWriting, RemoteProtocolError, OSError) as error:
        fail(error)
