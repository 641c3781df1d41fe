# SPDX-License-Identifier: AGPL-3.0-or-later
"""Step 7: ledgers verified offline, cosignatures held, a balance proven, a person erased, a changed byte found."""

import asyncio
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from ecot_cli.demo.cast import Coop
from ecot_cli.demo.checks import Teller
from ecot_client.node import NodeClient
from ecot_client.proofs import prove_balances

TAMPERED_INDEX: Final = 42
EXIT_CORRUPT: Final = 3


async def prove(coops: Mapping[str, Coop], teller: Teller) -> None:
    """Prove all of it."""
    for coop in coops.values():
        info = await coop.client.ledger()
        report = await asyncio.to_thread(verify, coop)
        teller.check("ledger_verified", report["size"] >= info.size, found=report["size"], title=coop.title)
        await _cosigned(coop, teller)
    await _balance(coops["barter"], teller)
    await _erase(coops["collective"], teller)
    await asyncio.to_thread(_tamper, coops["barter"], teller)


def verify(coop: Coop) -> dict[str, Any]:
    """Verify a node's folder as an operator would, whether the node runs or not."""
    report: dict[str, Any] = json.loads(coop.node.run("verify", str(coop.node.folder), "--json"))
    return report


async def _cosigned(coop: Coop, teller: Teller) -> None:
    shown = json.loads(await asyncio.to_thread(coop.node.run, "status", str(coop.node.folder), "--json"))
    witnesses = shown["witnesses"]
    teller.check("cosigned", shown["cosigned_size"] > 0 and len(witnesses) > 0, title=coop.title, found=len(witnesses))


async def _balance(coop: Coop, teller: Teller) -> None:
    """A member, with its own key alone, proves its balance to itself against a seal in the log."""
    actor = coop.actors[0]
    state_dir = coop.node.folder.parent / "member.client"
    async with NodeClient(coop.node.url, state_dir, [actor.signer]) as client:
        (proven,) = await prove_balances(client, actor.member, (("BART", "barter"),))
        shown = await client.get(f"/v1/members/{actor.member.hex()}/accounts", dict[str, Any])
    balance = next(one["balance_minor"] for one in shown["items"] if one["purpose"] == "barter")
    teller.check("balance_proven", proven.account.balance_minor == balance, found=balance)


async def _erase(coop: Coop, teller: Teller) -> None:
    """Erase what a person said of itself on applying; the log verifies as before."""
    listed = coop.client.records(type="membership.apply")
    index = (await anext(aiter(listed))).index
    before = await asyncio.to_thread(verify, coop)
    coop.node.stop()
    await asyncio.to_thread(coop.node.run, "erase", str(coop.node.folder), str(index))
    after = await asyncio.to_thread(verify, coop)
    await coop.node.start()
    erased = before["attachments"] - after["attachments"]
    same = all(before[name] == after[name] for name in ("root", "digest", "size"))
    teller.check("erased", erased == 1 and same, found=erased)


def _tamper(coop: Coop, teller: Teller) -> None:
    """Change one byte of one record in a copy of a ledger, and let `verify` find it."""
    copy = coop.node.folder.with_name("tampered")
    shutil.copytree(coop.node.folder, copy, ignore=shutil.ignore_patterns("lock"))
    _change_byte(copy / "log.db")
    done = subprocess.run(
        [sys.executable, "-m", "ecot_node", "verify", str(copy), "--json"], capture_output=True, text=True, check=False
    )
    is_found = done.returncode == EXIT_CORRUPT and str(TAMPERED_INDEX) in done.stderr
    teller.check("tampered", is_found, found=TAMPERED_INDEX)


def _change_byte(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        question = "select record from records where idx = ?"
        record = bytearray(connection.execute(question, (TAMPERED_INDEX,)).fetchone()[0])
        record[len(record) // 2] ^= 1
        connection.execute("update records set record = ? where idx = ?", (bytes(record), TAMPERED_INDEX))
