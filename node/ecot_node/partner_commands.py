# SPDX-License-Identifier: AGPL-3.0-or-later
"""`ecot-node invite` and `ecot-node peer`: how nodes find one another.

Both work on the folder, whether the node runs or not: a running node sees at once what they write.
"""

import shutil
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer

from ecot_node.config import ConfigError, load_settings
from ecot_node.ledger.clock import wall_ms
from ecot_node.store.address_book import AddressBook, KnownPartner
from ecot_node.store.errors import StoreError
from ecot_node.terminal import Folder, fail, language, run, say
from ecot_protocol.domains.federation.invitation import MAX_TEXT_CHARS, is_invitation
from ecot_protocol.errors import LocalProtocolError, RemoteProtocolError
from ecot_protocol.locale import translate

STDIN: Final = "-"

peer_app = typer.Typer(
    name="peer", no_args_is_help=True, rich_markup_mode=None, help="Where partners are found: add, list, remove."
)
PartnerName = Annotated[
    str, typer.Argument(help="ledger id or domain of a partner / identifiant de registre ou domaine d'un partenaire")
]


def invite(
    folder: Folder,
    address: Annotated[
        list[str] | None, typer.Option(help="where partners reach this node, e.g. /dns4/troc.example/tcp/8485")
    ] = None,
    url: Annotated[str, typer.Option(help="where this node answers over HTTP, for clients of the partner")] = "",
    days: Annotated[int, typer.Option(help="until it expires / durée de validité")] = 30,
    qr: Annotated[Path | None, typer.Option(help="write a QR code too: .svg or .png")] = None,
) -> None:
    """Write an invitation to become our partner: one line, for a mail; a QR code on a terminal."""
    text = run(_invite(folder, tuple(address or ()), url, days))
    sys.stdout.write(text + "\n")
    _draw(text, qr)
    say("invited", days=days)


async def _invite(folder: Path, addresses: tuple[str, ...], url: str, days: int) -> str:
    from ecot_node.bootstrap.adapters import make_store
    from ecot_node.inviting import make_invitation, read_state
    from ecot_node.restoring import LOG_FILE

    settings = load_settings(folder)
    if settings.store.kind == "sqlite" and not (folder / LOG_FILE).is_file():
        raise ConfigError("the ledger is not founded yet: serve the node once, then invite")
    state = await read_state(folder, make_store(folder, settings))
    try:
        return make_invitation(folder, settings, state, addresses, url, days, wall_ms())
    except LocalProtocolError as error:
        raise ConfigError(str(error)) from error


def _draw(text: str, path: Path | None) -> None:
    """Draw a QR code into a file, and on standard error where that is a terminal."""
    import segno

    code = segno.make(text, error="l", boost_error=False, micro=False)
    if path is not None:
        if path.suffix not in {".svg", ".png"}:
            fail(ConfigError(f"--qr {path}: expected a name that ends in .svg or .png"))
        try:
            code.save(str(path), scale=4)
        except OSError as error:
            fail(error)
        say("qr_written", path=path)
    elif sys.stderr.isatty() and shutil.get_terminal_size().columns >= code.symbol_size()[0]:
        code.terminal(out=sys.stderr, compact=True)
    elif sys.stderr.isatty():
        say("qr_too_wide", columns=code.symbol_size()[0])


@peer_app.command("add")
def add(
    folder: Folder,
    partner: Annotated[
        str, typer.Argument(help="an invitation, a file of one, - to read it; or a ledger id, or a known domain")
    ],
    addresses: Annotated[list[str] | None, typer.Argument(help="with a ledger or a domain: where its node is")] = None,
) -> None:
    """Add where a partner is found, or a partner to be. A running node dials it at once, without a restart."""
    try:
        book = _open_book(folder)
        text = _invitation_in(partner) if not addresses else None
        if text is not None:
            _add_invited(book, text)
        else:
            _add_addresses(book, partner, tuple(addresses or ()))
    except (StoreError, ConfigError, RemoteProtocolError, OSError) as error:
        fail(error)


def _open_book(folder: Path) -> AddressBook:
    load_settings(folder)  # an address book is made in the folder of a node, and nowhere else
    return AddressBook(folder)


def _invitation_in(argument: str) -> str | None:
    """Return the text of an invitation: the argument itself, a file's or standard input's; None if it is none."""
    if argument == STDIN:
        return sys.stdin.read(MAX_TEXT_CHARS + 1)
    if is_invitation(argument):
        return argument
    path = Path(argument)
    if path.is_file():
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(MAX_TEXT_CHARS + 1)
    return None


def _add_invited(book: AddressBook, text: str) -> None:
    from ecot_node.inviting import accept_invitation

    invitation, sound = accept_invitation(book, text, wall_ms())
    say("peer_invited", domain=invitation.domain, ledger=invitation.ledger.hex(), count=len(sound))


def _add_addresses(book: AddressBook, partner: str, addresses: tuple[str, ...]) -> None:
    from ecot_node.federation.multiaddrs import find_problem, parse_address
    from ecot_node.inviting import find_ledger

    ledger = find_ledger(book, partner)
    if not addresses:
        raise ConfigError("expected an invitation, or a partner and one address at least")
    for one in addresses:
        problem = find_problem(one)
        if problem is not None:
            raise ConfigError(f"address {one!r}: {problem}")
    if ledger not in book.partners():
        book.know(ledger, name="", is_recorded=False)
    book.write(ledger, [parse_address(one, None) for one in addresses], at_ms=wall_ms())
    say("peer_added", ledger=ledger.hex(), count=len(addresses))


@peer_app.command("list")
def list_peers(folder: Folder, as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """List partners and partners to be, with their addresses in the order in which they are dialled."""
    try:
        known = _open_book(folder).partners()
    except (StoreError, ConfigError, OSError) as error:
        fail(error)
    if as_json:
        report = [{"ledger": ledger.hex(), **_report(one)} for ledger, one in sorted(known.items())]
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
        return
    for ledger, one in sorted(known.items(), key=lambda item: item[1].name):
        status = translate(f"node.peer_{'recorded' if one.is_recorded else 'invited_only'}", language())
        sys.stdout.write(f"{one.name or '?'}  {ledger.hex()}  {status}\n")
        for address in one.addresses:
            word = "confirmed" if address.confirmed_at_ms is not None else address.source.value
            sys.stdout.write(f"  {address.address}  {translate(f'node.address_{word}', language())}\n")


def _report(one: KnownPartner) -> dict[str, Any]:
    return one._asdict() | {"addresses": [address._asdict() for address in one.addresses]}


@peer_app.command("remove")
def remove(
    folder: Folder,
    partner: PartnerName,
    address: Annotated[str | None, typer.Argument(help="one address; without it all of the partner's")] = None,
) -> None:
    """Forget where a partner is found. The peering stays: only the boards end it."""
    from ecot_node.inviting import find_ledger

    try:
        book = _open_book(folder)
        count = book.remove(find_ledger(book, partner), address)
    except (StoreError, ConfigError, OSError) as error:
        fail(error)
    say("peer_removed", count=count)
