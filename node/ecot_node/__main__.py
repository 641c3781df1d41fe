# SPDX-License-Identifier: AGPL-3.0-or-later
"""`ecot-node`: what an operator types. Every message is in French and in English; exit codes are in docs/operating."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ecot_node.config import ConfigError, load_settings
from ecot_node.ledger.node_keys import KeyProblem
from ecot_node.partner_commands import invite, peer_app
from ecot_node.store.errors import StoreError
from ecot_node.terminal import Folder, console, fail, language, run, say, shown
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.locale import translate

WORTH_WORKERS: Final = 2_000
"""Records from which on `verify` starts processes for signatures."""

app = typer.Typer(name="ecot-node", no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
app.command()(invite)
app.add_typer(peer_app)


@app.command()
def init(  # noqa: PLR0917 - options of a command
    folder: Folder,
    name: Annotated[str, typer.Option(prompt="Name of the cooperative / Nom de la coopérative")],
    domain: Annotated[str, typer.Option(prompt="Internet domain / Domaine internet")],
    board: Annotated[
        list[str] | None,
        typer.Option(
            help="HANDLE=PUBLIC_KEY[:OFFICE,OFFICE], once for each founder; the key is what `ecot key show` prints / "
            "une fois par fondateur ; la clé est celle que montre `ecot key show`"
        ),
    ] = None,
    threshold: Annotated[int, typer.Option(help="board members who sign together / signatures du conseil")] = 2,
    template: Annotated[str, typer.Option(help="barter, culture or collective")] = "barter",
    statutes: Annotated[Path | None, typer.Option(help="JSON of statutes instead of a template's")] = None,
    http_host: str = "127.0.0.1",
    http_port: int = 8484,
    listen: Annotated[str, typer.Option(help="libp2p address; empty: no federation")] = "",
    workers: Annotated[int, typer.Option(help="processes that check signatures")] = 0,
) -> None:
    """Make a node: folder, keys, settings, and a genesis that waits for the board's signatures."""
    from ecot_node.found import Foundation, make_node
    from ecot_node.init_options import parse_founders, parse_statutes, thresholds
    from ecot_node.ledger.clock import wall_ms
    from ecot_node.templates import settings_text, units

    try:
        founders = parse_founders(board or _ask_founders())
        foundation = Foundation(
            name=name,
            domain=domain,
            founders=founders,
            thresholds=thresholds(founders, threshold),
            units=units(),
            statutes=parse_statutes(template, statutes),
        )
        text = settings_text(
            http_host=http_host,
            http_port=http_port,
            libp2p_listen=listen or "/ip4/0.0.0.0/tcp/8485",
            is_federated=bool(listen),
            workers=workers,
        )
        draft = make_node(folder, foundation, text, wall_ms())
    except (ConfigError, KeyProblem, RemoteProtocolError, OSError) as error:
        fail(error)
    say("made", folder=folder, draft=draft, threshold=sum("board" in one.offices for one in founders))


def _ask_founders() -> list[str]:
    """Ask for founders, one a line, until an empty line."""
    founders: list[str] = []
    while answer := typer.prompt(translate("node.ask_founder", language()), default="", show_default=False):
        founders.append(answer)
    return founders


@app.command()
def found(
    folder: Folder,
    signed: Annotated[list[Path] | None, typer.Argument(help="copies of the draft that the board signed")] = None,
) -> None:
    """Put the board's signatures together; the next `serve` records the genesis."""
    from ecot_node.config import GENESIS_DRAFT
    from ecot_node.found import join_signatures

    try:
        draft = join_signatures(folder / GENESIS_DRAFT, tuple(signed or ()))
    except (ConfigError, RemoteProtocolError, OSError) as error:
        fail(error)
    say("joined", count=len(draft.signatures))


@app.command()
def serve(
    folder: Folder,
    confirm_clock: Annotated[
        bool, typer.Option(help="the machine's clock is right, though it jumped / l'horloge est juste")
    ] = False,
) -> None:
    """Run the node until it is told to stop (SIGTERM, SIGINT)."""
    run(_serve(folder, confirm_clock))


async def _serve(folder: Path, is_clock_confirmed: bool) -> None:
    from ecot_node.app import set_up_logs
    from ecot_node.bootstrap.node import Node

    settings = load_settings(folder)
    set_up_logs(settings.log)
    node = Node(folder, settings, is_clock_confirmed=is_clock_confirmed)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for one in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(one, ended.set)
    await node.start()
    say("serving", url=f"http://{settings.http.host}:{node.port}")
    try:
        await ended.wait()
    finally:
        say("stopping")
        await node.stop()


@app.command()
def verify(
    folder: Folder,
    workers: Annotated[int, typer.Option(help="processes that check signatures; 0: here")] = -1,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Check every hash, signature, rule, seal and the digest, offline; says the first wrong record."""
    count = workers if workers >= 0 else os.cpu_count() or 1
    result = run(_verify(folder, count))
    if as_json:
        report = {name: _plain(value) for name, value in msgspec.structs.asdict(result).items()}
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
        return
    say("verified", size=result.size, signatures=result.signatures, seals=result.seals, origin=result.origin)
    say("digest", root=result.root.hex(), digest=result.digest.hex())


def _plain(value: object) -> object:
    return value.hex() if isinstance(value, bytes) else value


async def _verify(folder: Path, workers: int) -> Any:
    from ecot_node.bootstrap.adapters import make_store
    from ecot_node.ledger.signatures import make_pool
    from ecot_node.ledger.verify import verify_log
    from ecot_protocol.machine import Machine

    store = make_store(folder, load_settings(folder))
    opened = await store.open(ledger=None, read_only=True)
    pool = make_pool(workers) if workers and opened.size > WORTH_WORKERS else None
    try:
        with _progress(opened.size) as on_progress:
            return await verify_log(store, opened, Machine(), workers=pool, on_progress=on_progress)
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)
        await store.close()


class _progress:
    """A progress bar on standard error, if that is a terminal."""

    def __init__(self, total: int) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task(translate("node.verifying", language()), total=total)

    def __enter__(self) -> Callable[[int], None]:
        self._bar.start()
        return lambda done: self._bar.update(self._task, completed=done)

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


@app.command()
def backup(folder: Folder, file: Annotated[Path, typer.Argument(help="new file")]) -> None:
    """Copy the log into one file, while the node runs or not."""
    from ecot_node.config import KEYS_FOLDER
    from ecot_node.restoring import backup_node

    try:
        manifest = backup_node(folder, file)
    except (StoreError, ConfigError, OSError) as error:
        fail(error)
    say("backed_up", file=file, size=manifest.size, root=manifest.root, keys=folder / KEYS_FOLDER)


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="a backup")],
    folder: Annotated[Path, typer.Argument(help="new folder of the node")],
    keys: Annotated[Path, typer.Option(help="folder with the node's keys and node.toml, e.g. the old data folder")],
    erasures: Annotated[Path | None, typer.Option(help="list of erasures made since the backup")] = None,
) -> None:
    """Unpack a backup; the node will ask every witness before it writes again."""
    from ecot_node.restoring import restore_node

    try:
        manifest = restore_node(file, folder, keys, erasures)
    except (StoreError, KeyProblem, ConfigError, OSError) as error:
        fail(error)
    say("restored", folder=folder, size=manifest.size, root=manifest.root)


@app.command()
def erase(
    folder: Folder,
    index: Annotated[int, typer.Argument(help="record")],
    position: Annotated[list[int] | None, typer.Option(help="attachments of the record; all by default")] = None,
    ground: Annotated[str, typer.Option(help="why, e.g. request, retention_over")] = "request",
    force: Annotated[bool, typer.Option(help="although the law asks to keep it")] = False,
) -> None:
    """Erase attachments of a record (names, reasons, documents): the log still verifies."""
    count = run(_erase(folder, index, position, ground, force))
    say("erased", count=count, index=index)


async def _erase(folder: Path, index: int, positions: list[int] | None, ground: str, is_forced: bool) -> int:
    from ecot_node.bootstrap.adapters import make_store
    from ecot_node.erasing import erase_attachments

    store = make_store(folder, load_settings(folder))
    await store.open(ledger=None)
    try:
        return await erase_attachments(store, folder, index, positions, ground, is_forced=is_forced)
    finally:
        await store.close()


@app.command("rebuild-views")
def rebuild_views(folder: Folder) -> None:
    """Fill the tables that lists and searches are read from anew, from the log."""
    size = run(_rebuild_views(folder))
    say("views_rebuilt", size=size)


async def _rebuild_views(folder: Path) -> int:
    from ecot_node.bootstrap.adapters import make_store, make_views
    from ecot_node.ledger.boot import replay
    from ecot_protocol.machine import Machine
    from ecot_protocol.state import State

    store = make_store(folder, load_settings(folder))
    opened = await store.open(ledger=None)
    views = make_views(folder)
    await views.open()
    try:
        await views.reset()
        with _progress(opened.size) as on_progress:
            state = State()

            async def show(entries: Any) -> None:
                await views.apply(entries)
                on_progress(state.size)

            await replay(Machine(), store, state, show)
        await views.swap()
        return state.size
    finally:
        await views.close()
        await store.close()


@app.command()
def status(folder: Folder, as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """Say how the node in a folder is: running or not, size, checkpoint, witnesses."""
    report = run(_status(folder))
    if as_json:
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
        return
    for name, value in report.items():
        sys.stdout.write(translate(f"node.status_{name}", language(), value=shown(value)) + "\n")


async def _status(folder: Path) -> dict[str, object]:
    from ecot_node.bootstrap.adapters import make_store
    from ecot_node.config import KEYS_FOLDER
    from ecot_node.federation.peer_ids import peer_id_of
    from ecot_node.ledger.node_keys import load_keys
    from ecot_node.store.folder_lock import is_locked
    from ecot_protocol.domains.coop.genesis import ledger_id
    from ecot_protocol.wire.entry import decode_record

    settings = load_settings(folder)
    store = make_store(folder, settings)
    opened = await store.open(ledger=None, read_only=True)
    try:
        cosigned = await store.newest_cosigned()
        lines = cosigned.cosignatures if cosigned else ()
        genesis = await store.record(0)
        return {
            "running": is_locked(folder),
            "url": f"http://{settings.http.host}:{settings.http.port}",
            "peer_id": peer_id_of(load_keys(folder / KEYS_FOLDER).public_key("host")),
            "ledger": ledger_id(decode_record(genesis.record).body).hex() if genesis else None,
            "size": opened.size,
            "checkpoint": (opened.checkpoint or b"").decode(),
            "cosigned_size": cosigned.size if cosigned else 0,
            "witnesses": sorted({one.witness_name.partition("+")[0] for one in lines}),
            "forks": len(await store.forks()),
            "erasures": len(await store.erasures()),
        }
    finally:
        await store.close()


def main() -> None:
    """Entry point of the `ecot-node` command."""
    app()


if __name__ == "__main__":
    main()
