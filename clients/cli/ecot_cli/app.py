# SPDX-License-Identifier: AGPL-3.0-or-later
"""All commands of `ecot`, in the order in which help shows them."""

import importlib
import importlib.util
from typing import Final

import typer

from ecot_cli.commands.catalogue import CATALOGUE_COMMANDS
from ecot_cli.commands.clearing import CLEARING_COMMANDS
from ecot_cli.commands.drafts import DRAFT_COMMANDS
from ecot_cli.commands.governance import GOVERNANCE_COMMANDS
from ecot_cli.commands.keys import KEY_COMMANDS
from ecot_cli.commands.membership import MEMBERSHIP_COMMANDS
from ecot_cli.commands.partners import PARTNER_COMMANDS
from ecot_cli.commands.proofs import PROOF_COMMANDS
from ecot_cli.commands.shares import SHARES_COMMANDS
from ecot_cli.commands.trade import TRADE_COMMANDS
from ecot_cli.commands.transfers import TRANSFER_COMMANDS
from ecot_cli.commands.witnessing import WITNESSING_COMMANDS
from ecot_cli.framework import Command, build_app

COMMANDS: Final[tuple[Command, ...]] = (
    *KEY_COMMANDS,
    *MEMBERSHIP_COMMANDS,
    *TRADE_COMMANDS,
    *SHARES_COMMANDS,
    *GOVERNANCE_COMMANDS,
    *DRAFT_COMMANDS,
    *CATALOGUE_COMMANDS,
    *PARTNER_COMMANDS,
    *TRANSFER_COMMANDS,
    *CLEARING_COMMANDS,
    *PROOF_COMMANDS,
    *WITNESSING_COMMANDS,
)
"""Every command but `demo`."""
_DEMO: Final = "ecot_cli.commands.demo"


def make_app(locale: str) -> typer.Typer:
    """Build `ecot` in a language; `demo` is there where its module is."""
    demo: tuple[Command, ...] = ()
    if importlib.util.find_spec(_DEMO) is not None:
        demo = importlib.import_module(_DEMO).DEMO_COMMANDS
    return build_app((*COMMANDS, *demo), locale)
