# SPDX-License-Identifier: AGPL-3.0-or-later
"""The demo's story: three nodes are founded, seven steps are told and checked, tables end it."""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

from ecot_cli.demo import act_federation, act_members, act_proofs, act_royalties, act_speed, act_votes, report
from ecot_cli.demo.cast import FOUNDERS, Coop, new_signer
from ecot_cli.demo.checks import Teller
from ecot_cli.demo.processes import NodeProcess
from ecot_client.node import NodeClient
from ecot_client.transport import Patience
from ecot_protocol.domains.coop.statutes import Statutes

COOPS: Final = {
    "barter": ("Troc des Deux Rives", "troc.example"),
    "culture": ("La Scène Commune", "scene.example"),
    "collective": ("Le Collectif", "collectif.example"),
}
"""Template of the statutes -> (name, domain)."""


class Demo:
    """One run.

    Args:
        teller: tells and checks.
        plays: a file of real plays; None generates them.
    """

    def __init__(self, teller: Teller, plays: Path | None) -> None:
        self.teller, self.plays = teller, plays
        self.coops: dict[str, Coop] = {}

    async def run(self, *, stays_up: bool) -> bool:
        """Tell everything; return whether every check held.

        Args:
            stays_up: keep the nodes running until the user interrupts.
        """
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="ecot-demo-") as name:
            async with self._nodes(Path(name)) as coops:
                self.coops = coops
                outcome, shared, debts = await self._tell(coops)
                speed = await act_speed.measure(coops["barter"])
                tables = report.Tables(outcome=outcome, shared=shared, debts=debts, speed=speed)
                await report.show(self.teller, coops, tables, seconds=time.monotonic() - started)
                if stays_up:
                    await self._stay_up(coops)
        return not self.teller.failed

    async def _tell(
        self, coops: Mapping[str, Coop]
    ) -> tuple[dict[str, Any], act_royalties.Shared, act_federation.Debts]:
        teller = self.teller
        teller.step("step_members")
        await act_members.join_everybody(coops, teller)
        teller.step("step_trade")
        await act_members.trade(coops["barter"], teller)
        teller.step("step_votes")
        await act_votes.consent(coops["collective"], teller)
        outcome = await act_votes.amend(coops["culture"], teller)
        teller.step("step_royalties")
        shared = await act_royalties.share_period(coops["culture"], teller, self.plays)
        teller.step("step_federation")
        await act_federation.trade_across(coops, teller)
        teller.step("step_clearing")
        debts = await act_federation.clear(coops, teller)
        teller.step("step_proofs")
        await act_proofs.prove(coops, teller)
        return outcome, shared, debts

    @asynccontextmanager
    async def _nodes(self, folder: Path) -> AsyncIterator[dict[str, Coop]]:
        async with AsyncExitStack() as stack:
            coops = {}
            self.teller.step("step_nodes")
            boards = {name: {handle: new_signer() for handle in FOUNDERS} for name in COOPS}
            nodes = {name: NodeProcess(name, folder / name) for name in COOPS}
            await asyncio.gather(*(asyncio.to_thread(self._make, nodes[name], boards[name]) for name in COOPS))
            for node in nodes.values():
                node.add_partners([one for one in nodes.values() if one is not node])
                stack.callback(node.stop)
            await asyncio.gather(*(node.start() for node in nodes.values()))
            for name, node in nodes.items():
                signers = list(boards[name].values())
                client = NodeClient(node.url, folder / f"{name}.client", signers, patience=Patience())
                await stack.enter_async_context(client)
                coops[name] = await self._meet(name, node, client)
                coops[name].board = boards[name]
            yield coops

    @staticmethod
    def _make(node: NodeProcess, board: dict[str, Any]) -> None:
        title, domain = COOPS[node.name]
        founders = {handle: (signer, FOUNDERS[handle]) for handle, signer in board.items()}
        node.init(title=title, domain=domain, template=node.name, founders=founders)
        node.found(list(board.values()))

    async def _meet(self, name: str, node: NodeProcess, client: NodeClient) -> Coop:
        title, domain = COOPS[name]
        info = await client.ledger()
        shown = await client.get(f"/v1/statutes/{info.statutes_version}", act_members.StatutesAnswer)
        self.teller.tell("node_up", title=title, url=node.url, origin=info.origin or "")
        statutes: Statutes = shown.statutes
        return Coop(name, title, domain, name, node, client, statutes, shown.version)

    async def _stay_up(self, coops: Mapping[str, Coop]) -> None:
        self.teller.step("stays_up")
        for coop in coops.values():
            self.teller.console.print(f"  {coop.title}: {coop.node.url}/docs", highlight=False)
        await asyncio.Event().wait()
