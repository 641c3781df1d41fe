# SPDX-License-Identifier: AGPL-3.0-or-later
"""The only place that builds adapters and joins the parts of a node."""

import asyncio
import os
from contextlib import AsyncExitStack
from ipaddress import ip_network
from pathlib import Path
from typing import Final

import structlog
from aiohttp import web

from ecot_node.config import KEYS_FOLDER, SNAPSHOTS_FOLDER, ConfigError, Settings
from ecot_node.domains.database import ViewsDatabase
from ecot_node.domains.jobs import due_entries
from ecot_node.domains.records.views import RecordViews
from ecot_node.domains.routes import DOMAIN_ROUTES
from ecot_node.http.app import make_app
from ecot_node.http.context import Context, Rate
from ecot_node.http.context import HttpSettings as HttpLimits
from ecot_node.ledger.clock import wall_ms
from ecot_node.ledger.errors import NotWriting, Overloaded
from ecot_node.ledger.node_keys import NodeKeys, load_keys
from ecot_node.ledger.signatures import SignatureChecker
from ecot_node.ledger.writer import Writer, WriterKeys
from ecot_node.store.port import LogStore
from ecot_node.store.sqlite import SqliteStore
from ecot_protocol.machine import Machine
from ecot_protocol.wire.cosignature import Cosigner
from ecot_protocol.wire.keys import Signer

log = structlog.get_logger("ecot.node")

JOBS_INTERVAL_S: Final = 1.0


def make_store(folder: Path, settings: Settings) -> LogStore:
    """Return the store that the settings name, closed.

    Raises:
        ConfigError: PostgreSQL without a URL.
    """
    if settings.store.kind == "sqlite":
        return SqliteStore(folder)
    if not settings.store.url:
        raise ConfigError("store.url is empty: expected postgresql://...")
    from ecot_node.store.postgres import PostgresStore

    return PostgresStore(settings.store.url)


class Node:
    """A whole node.

    Args:
        folder: its data folder, made by `ecot-node init`.
        settings: of that folder.
        is_clock_confirmed: an operator has looked at the clock.
    """

    def __init__(self, folder: Path, settings: Settings, *, is_clock_confirmed: bool = False) -> None:
        self.folder, self.settings = folder, settings
        self._is_clock_confirmed = is_clock_confirmed
        self.keys: NodeKeys = load_keys(folder / KEYS_FOLDER)
        self.machine = Machine()
        self.store = make_store(folder, settings)
        self.views = ViewsDatabase(folder)
        self.checker = SignatureChecker(settings.ledger.signature_workers)
        self.writer = Writer(
            self.store,
            self.machine,
            WriterKeys(Signer(self.keys.seed("agent")), self.keys.seed("log"), os.urandom),
            views=self.views,
            checker=self.checker,
            snapshots=folder / SNAPSHOTS_FOLDER,
        )
        self._stack = AsyncExitStack()
        self.port = 0

    async def start(self) -> None:
        """Start everything, the HTTP server last.

        Raises:
            StoreError, LedgerCorrupt, KeyProblem, OSError.
        """
        async with AsyncExitStack() as stack:
            self.checker.start()
            stack.callback(self.checker.stop)
            await self.checker.warm_up()
            await self.views.open()
            stack.push_async_callback(self.views.close)
            await self.writer.start(is_clock_confirmed=self._is_clock_confirmed)
            stack.push_async_callback(self.writer.stop)
            jobs = asyncio.create_task(self._run_jobs(), name="jobs")
            stack.push_async_callback(_cancel, jobs)
            await self._serve(stack)
            self._stack = stack.pop_all()

    async def stop(self) -> None:
        """Stop in the opposite order."""
        await self._stack.aclose()

    async def _serve(self, stack: AsyncExitStack) -> None:
        http = self.settings.http
        app = make_app(self._context(), DOMAIN_ROUTES)
        runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, http.host, http.port, backlog=1024)
        await site.start()
        self.port = runner.addresses[0][1]
        log.info("http_listening", host=http.host, port=self.port)

    def _context(self) -> Context:
        http = self.settings.http
        per_second = http.requests_per_minute / 60
        rate = Rate(per_second=per_second, burst=max(200, int(per_second)))
        limits = HttpLimits(
            trusted_proxies=tuple(ip_network(one) for one in http.trusted_proxies),
            max_connections=http.max_connections,
            address_rate=rate,
            session_rate=rate,
        )
        return Context(
            ledger=self.writer,
            machine=self.machine,
            store=self.store,
            views=self.views,
            records=RecordViews(self.views),
            peers=self._peers(),
            cosigner=self._cosigner(),
            clock_ms=wall_ms,
            settings=limits,
        )

    async def _run_jobs(self) -> None:
        """Record what is due: seals, fees, closings. Every such entry proves by itself that it is due."""
        sealed_at = wall_ms()
        sealed_size = -1
        while True:
            await asyncio.sleep(JOBS_INTERVAL_S)
            try:
                due = await self.writer.read(lambda state: due_entries(state, wall_ms()))
                for tag, payload in due:
                    await self.writer.append_own(tag, payload)
                size = self.writer.status().size
                if wall_ms() - sealed_at >= self.settings.ledger.seal_interval_s * 1_000 and size > sealed_size:
                    await self.writer.seal()
                    sealed_at, sealed_size = wall_ms(), size + 1
            except (NotWriting, Overloaded) as error:
                log.debug("jobs_wait", reason=str(error))


async def _cancel(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
