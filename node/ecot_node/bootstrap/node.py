# SPDX-License-Identifier: AGPL-3.0-or-later
"""A whole node: its parts, joined, started and stopped in order."""

import asyncio
import gc
import os
from contextlib import AsyncExitStack
from hashlib import sha256
from ipaddress import ip_network
from pathlib import Path
from typing import Final

import structlog

from ecot_node.bootstrap.adapters import make_store, make_transport, make_views
from ecot_node.bootstrap.again import verify_again
from ecot_node.config import GENESIS_DRAFT, KEYS_FOLDER, RESTORED_MARK, SNAPSHOTS_FOLDER, ConfigError, Settings
from ecot_node.domains.federation.book import ViewsMirrorBook
from ecot_node.domains.federation.round_routes import round_routes
from ecot_node.domains.federation.round_solver import solve_round
from ecot_node.domains.federation.routes import federation_routes
from ecot_node.domains.jobs import due_entries
from ecot_node.domains.records.queries import ViewsRecordIndex
from ecot_node.domains.routes import DOMAIN_ROUTES
from ecot_node.federation.addresses import PartnerAddresses
from ecot_node.federation.framing import Hello, encode_frame
from ecot_node.federation.guard import UNASKED, HistoryGuard
from ecot_node.federation.kept_rounds import KeptRounds
from ecot_node.federation.partners import PartnerDesk
from ecot_node.federation.peer_ids import peer_id_of
from ecot_node.federation.peers import LedgerPeers
from ecot_node.federation.port import PeerId
from ecot_node.federation.service import FederationService, FederationSigners, Netting
from ecot_node.http.app import make_app
from ecot_node.http.context import LOOPBACK, Context, Network, Rate
from ecot_node.http.context import HttpSettings as HttpLimits
from ecot_node.http.entry_door import put_door
from ecot_node.http.server import listen
from ecot_node.ledger.clock import wall_ms
from ecot_node.ledger.errors import NotWriting, Overloaded
from ecot_node.ledger.next_keys import NextKeys
from ecot_node.ledger.node_keys import NodeKeys, load_keys
from ecot_node.ledger.signatures import SignatureChecker
from ecot_node.ledger.writer import Writer, WriterKeys
from ecot_node.store.address_book import AddressBook
from ecot_node.store.errors import StoreError
from ecot_node.store.forks import ForkBoard
from ecot_protocol.domains.coop.state import ML_DSA_COSIGNER
from ecot_protocol.domains.federation.statements import DECISIONS_SUFFIX
from ecot_protocol.machine import Machine
from ecot_protocol.wire.cosignature import Cosigner, MlDsaCosigner, make_ml_dsa_cosigner
from ecot_protocol.wire.entry import decode_entry
from ecot_protocol.wire.keys import Signer
from ecot_protocol.wire.note import NoteSigner
from ecot_protocol.wire.reply import Refused

log = structlog.get_logger("ecot.node")

JOBS_INTERVAL_S: Final = 1.0
GC_THRESHOLDS: Final = (50_000, 50, 100)
"""Allocations before a collection: a group of entries makes thousands of records, none of them in a cycle."""
PROTOCOL_VERSION: Final = 1
AGENT: Final = "ecot/0.1"


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
        self.next_keys = NextKeys(folder / KEYS_FOLDER)
        self.machine = Machine()
        self.store = make_store(folder, settings)
        self.views = make_views(folder)
        self.checker = SignatureChecker(settings.ledger.signature_workers)
        self.writer = Writer(
            self.store,
            self.machine,
            WriterKeys(Signer(self.keys.seed("agent")), self.keys.seed("log"), os.urandom, self.next_keys.find_seed),
            views=self.views,
            checker=self.checker,
            snapshots=folder / SNAPSHOTS_FOLDER,
            genesis=self._drafted_genesis(),
        )
        self.book = AddressBook(folder)
        urls = {ledger.hex(): one.url for ledger, one in self.book.partners().items() if one.url and one.is_recorded}
        urls |= {one.ledger: one.url for one in settings.federation.peers if one.url}
        self.guard = HistoryGuard(self.writer, self.store, urls, folder / RESTORED_MARK)
        self.forks = ForkBoard(self.store)
        self._stack = AsyncExitStack()
        self.federation: FederationService | None = None
        self.desk: PartnerDesk | None = None
        self.port = 0

    async def start(self) -> None:
        """Start everything, the HTTP server last.

        Raises:
            StoreError, LedgerCorrupt, KeyProblem, ConfigError, OSError.
        """
        async with AsyncExitStack() as stack:
            stack.callback(self.book.close)
            self.checker.start()
            stack.callback(self.checker.stop)
            await self.checker.warm_up()
            await self.views.open()
            stack.push_async_callback(self.views.close)
            await self.writer.start(
                ledger=self._drafted_genesis(), is_clock_confirmed=self._is_clock_confirmed, blocked=UNASKED
            )
            stack.push_async_callback(self.writer.stop)
            await self._found()
            await self.forks.load()
            self._take_new_keys()
            self.desk = self._make_desk()
            self.federation = self._make_federation()
            await self._serve(stack)
            await self.guard.look()
            asking = asyncio.create_task(self.guard.hear_the_rest(), name="guard")
            stack.push_async_callback(_cancel, asking)
            if self.federation is not None:
                await self.federation.start()
                stack.push_async_callback(self.federation.stop)
                await self._look_around(stack, self.federation)
            if self.desk is not None:
                await self.desk.start()
                stack.push_async_callback(self.desk.stop)
            jobs = asyncio.create_task(self._run_jobs(), name="jobs")
            stack.push_async_callback(_cancel, jobs)
            if self.settings.ledger.verify_after_start_s:
                again = verify_again(self.folder, self.writer, self.settings.ledger.verify_after_start_s)
                stack.push_async_callback(_cancel, asyncio.create_task(again, name="verify-again"))
            self._stack = stack.pop_all()
        _settle_memory()

    async def stop(self) -> None:
        """Stop in the opposite order."""
        await self._stack.aclose()

    def _take_new_keys(self) -> None:
        """Use the keys that the ledger names by now."""
        named = {purpose: key.public_key for purpose, key in self.writer.state.coop.node_keys.items()}
        replaced = self.next_keys.settle(named)
        if replaced:
            log.info("node_keys_replaced", purposes=replaced)
            self.keys = load_keys(self.folder / KEYS_FOLDER)
            self.writer.use_agent(Signer(self.keys.seed("agent")))

    def _make_desk(self) -> PartnerDesk | None:
        """Return the desk for partners, not started; None before the genesis."""
        cosigner = self._cosigner()
        if cosigner is None:
            return None
        return PartnerDesk(
            self.writer,
            self.store,
            ViewsMirrorBook(self.views),
            agent=Signer(self.keys.seed("agent")),
            cosigner=cosigner,
            forks=self.forks,
            urls={one.ledger: one.url for one in self.settings.federation.peers if one.url},
        )

    def _make_federation(self) -> FederationService | None:
        """Return the federation of this node, not started; None if it is not enabled or the ledger not founded."""
        settings, cosigner = self.settings.federation, self._cosigner()
        ledger, log_key = self.writer.state.ledger, self.writer.log_key
        if not settings.enabled or cosigner is None or ledger is None or log_key is None or self.desk is None:
            return None
        service = FederationService(
            self.writer,
            self.store,
            make_transport(self.keys.seed("host"), settings),
            self.guard,
            board=self.forks,
            signers=FederationSigners(
                Signer(self.keys.seed("agent")),
                NoteSigner(log_key.name + DECISIONS_SUFFIX, self.keys.seed("log")),
                (cosigner, *self._further_cosigners()),
            ),
            addresses=self._partner_addresses(),
            hello=encode_frame(Hello(PROTOCOL_VERSION, AGENT, log_key.name, ledger)),
            netting=Netting(solve_round, KeptRounds(self.folder)),
        )
        service.serve(self.desk)
        return service

    async def _look_around(self, stack: AsyncExitStack, federation: FederationService) -> None:
        """Find partners on the local network, if the operator asks for it and the network allows it."""
        if not self.settings.federation.mdns:
            return
        from ecot_node.federation.mdns import LocalNetwork

        nearby = LocalNetwork(
            PeerId(peer_id_of(self.keys.public_key("host"))),
            federation.listen_addresses,
            is_wanted=federation.is_partner,
            found=federation.seen_nearby,
        )
        stack.push_async_callback(nearby.stop)
        try:
            await nearby.start()
        except OSError as error:
            log.warning("mdns_not_possible", error=str(error))

    def _partner_addresses(self) -> PartnerAddresses:
        """Return where partners are dialled.

        Raises:
            ConfigError: an address in the settings is malformed.
        """
        from ecot_node.federation.multiaddrs import find_problem

        peers = self.settings.federation.peers
        for address in (address for one in peers for address in one.addresses):
            problem = find_problem(address)
            if problem is not None:
                raise ConfigError(f"federation.peers: address {address!r}: {problem}")
        return PartnerAddresses(peers, self.book, is_sound=lambda one: find_problem(one) is None, clock_ms=wall_ms)

    def _drafted_genesis(self) -> bytes | None:
        """Return the hash of the only genesis that this node may record: the ledger's id; None if the draft is gone."""
        path = self.folder / GENESIS_DRAFT
        return sha256(decode_entry(path.read_bytes()).body).digest() if path.is_file() else None

    async def _found(self) -> None:
        """Record the genesis, if the board has signed the draft and it is not recorded yet."""
        path = self.folder / GENESIS_DRAFT
        if self.writer.log_key is not None or not path.is_file():
            return
        self.writer.unblock(UNASKED)  # nobody can have witnessed a log that has not begun
        reply = await self.writer.submit((decode_entry(path.read_bytes()),))
        if isinstance(reply.outcomes[0], Refused):
            log.warning("genesis_waits", code=reply.outcomes[0].code)

    async def _serve(self, stack: AsyncExitStack) -> None:
        http = self.settings.http
        agent = Signer(self.keys.seed("agent"))
        routes = (
            *DOMAIN_ROUTES,
            *federation_routes(self.federation, agent, self.desk, self.next_keys),
            *round_routes(self.federation),
        )
        context = self._context()
        app = make_app(context, routes)
        trusted = (*LOOPBACK, *_networks(http.trusted_proxies))
        listener = await listen(
            app,
            http.host,
            http.port,
            max_connections=http.max_connections,
            trusted=trusted,
            prepare=lambda server: put_door(server, app, context),
        )
        stack.push_async_callback(listener.stop)
        self.port = listener.port
        log.info("http_listening", host=http.host, port=self.port)

    def _context(self) -> Context:
        cosigner = self._cosigner()
        http = self.settings.http
        rate = Rate(per_second=http.requests_per_minute / 60, burst=max(200, http.requests_per_minute // 60))
        entries_rate = Rate(per_second=http.entries_per_minute / 60, burst=max(1, http.entries_per_minute // 3))
        limits = HttpLimits(
            trusted_proxies=_networks(http.trusted_proxies),
            max_connections=http.max_connections,
            address_rate=rate,
            session_rate=rate,
            entries_rate=entries_rate,
        )
        return Context(
            ledger=self.writer,
            machine=self.machine,
            store=self.store,
            views=self.views,
            records=ViewsRecordIndex(self.views),
            peers=LedgerPeers(self.writer),
            cosigners=(cosigner, *self._further_cosigners()) if cosigner is not None else (),
            forks=self.forks,
            clock_ms=wall_ms,
            settings=limits,
        )

    def _cosigner(self) -> Cosigner | None:
        """Return the key that cosigns partners' checkpoints, named like our log; None before the genesis."""
        log_key = self.writer.log_key
        return Cosigner(log_key.name, self.keys.seed("cosigner")) if log_key is not None else None

    def _further_cosigners(self) -> tuple[MlDsaCosigner, ...]:
        """Return the ML-DSA-44 key that cosigns too; none unless the ledger names the one that we have and can use."""
        log_key, seed = self.writer.log_key, self.keys.further_cosigner_seed
        named = self.writer.state.coop.node_keys.get(ML_DSA_COSIGNER)
        if log_key is None or seed is None or named is None:
            return ()
        if self.keys.further_cosigner != named.public_key:
            log.warning("further_cosigner_unused", reason="this machine can't use it, or the ledger names another")
            return ()
        made = make_ml_dsa_cosigner(log_key.name, seed)
        return (made,) if made is not None else ()

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
            except (NotWriting, Overloaded, StoreError) as error:
                log.debug("jobs_wait", reason=str(error))


def _networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    try:
        return tuple(ip_network(one) for one in texts)
    except ValueError as error:
        raise ConfigError(f"http.trusted_proxies: {error}") from error


def _settle_memory() -> None:
    """Let the collector leave alone what lives as long as the node: the state, the routes, the libraries."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


async def _cancel(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
