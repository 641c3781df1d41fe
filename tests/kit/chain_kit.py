# SPDX-License-Identifier: AGPL-3.0-or-later
"""Any number of cooperatives with real node processes, peered as a graph says; `trio_kit` has three, with bad links.

Each two peered ledgers accept the decisions of both their own logs, under a checkpoint that both have cosigned, and
those of `hub`, the one ledger that all are partners of, under the majority of its witnesses: so paths of any length
have a decider whom everybody reaches.
"""

import contextlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ledger_kit import Actor
from node_kit import BOARD_KEY, admission, application, make_founded, wall_ms
from process_kit import Nursery, Raised
from trio_kit import LOOPBACK, SETTINGS, Coop, free_port

from ecot_client.entries import build_entry
from ecot_client.federation import PAR, build_send_over, decider_of, draft_peering, peered
from ecot_protocol.domains.federation.deals import Draft, Hop
from ecot_protocol.domains.federation.statements import DecisionPolicy, Peering, decode_peering, encode_peering
from ecot_protocol.ledger.entry_type import BOARD
from ecot_protocol.wire.entry import Entry
from ecot_protocol.wire.keys import Signer
from ecot_protocol.wire.statement import sign_statement, statement_id

HUB_WITNESSES = 3
HUB_COUNT = 2


@dataclass
class Chain:
    """Cooperatives peered with each other; their nodes do not run.

    Attributes:
        coops: by name, in the order of the names given.
        hub: name of the one whom all are partners of.
        hosts: name -> address at which others reach its node.
        peerings: two names -> what both signed.
    """

    coops: dict[str, Coop]
    hub: str
    hosts: dict[str, str]
    peerings: dict[frozenset[str], Peering] = field(default_factory=dict)

    def hub_policy(self) -> DecisionPolicy:
        """Return the policy for decisions of the hub's log: a majority of three witnesses, the hub one of them."""
        sides = [coop.side() for name, coop in self.coops.items() if name != self.hub]
        hub = self.coops[self.hub].side()
        witnesses = (hub, *sides[: HUB_WITNESSES - 1])
        return decider_of(hub, witnesses, HUB_COUNT)

    def draft(self, names: Sequence[str], amount_minor: int) -> Draft:
        """Return a transfer over a path, at 1 to 1 and without fees, before anybody is named.

        One hop is decided by the payee's log, a longer path by the hub's.
        """
        sides = [self.coops[name].side() for name in names]
        pairs = [frozenset(pair) for pair in itertools.pairwise(names)]
        peerings = [self.peerings[pair] for pair in pairs]
        decision = self.hub_policy() if len(names) > 2 else peerings[0].decider(sides[-1].ledger)
        assert decision is not None
        return Draft(
            agents=tuple(side.agent for side in sides),
            decision=decision,
            hops=tuple(
                Hop(in_minor=amount_minor, out_minor=amount_minor, peering=statement_id(encode_peering(one)))
                for one in peerings
            ),
            path=tuple(side.ledger for side in sides),
            units=tuple(side.unit for side in sides),
        )


def make_chain(
    place: Path,
    names: Sequence[str],
    links: Iterable[tuple[str, str]],
    *,
    hub: str,
    members: Sequence[str] = ("ada", "bela"),
    hosts: Mapping[str, str] | None = None,
) -> Chain:
    """Make, found and peer cooperatives with members each, and stop their nodes.

    Args:
        place: an empty folder.
        names: of the cooperatives.
        links: who is a partner of whom; the hub's with all others are added.
        hub: one of the names.
        members: of each.
        hosts: name -> IPv4 address of its node, for networks of their own; loopback by default. The nodes are founded
            and peered on loopback in any case.
    """
    hosts = dict(hosts or dict.fromkeys(names, LOOPBACK))
    coops = {name: Coop(name, place / name, free_port(), free_port()) for name in names}
    for coop in coops.values():
        make_founded(
            coop.folder,
            domain=f"{coop.name}.example",
            http_port=str(coop.http_port),
            listen=f"/ip4/{LOOPBACK}/tcp/{coop.libp2p_port}",
        )
    chain = Chain(coops, hub, hosts)
    wanted = {frozenset(pair) for pair in links} | {frozenset((hub, name)) for name in names if name != hub}
    write_partners(chain, wanted, dict.fromkeys(names, LOOPBACK))
    with running(chain) as nodes:
        for name, coop in coops.items():
            for member in members:
                entry, actor = application(coop.ledger, f"{name}-{member}")
                nodes[name].must_post(entry, admission(coop.ledger, actor))
                coop.actors.append(actor)
        for pair in sorted(wanted, key=sorted):
            _peer(chain, nodes, *sorted(pair))
    if hosts != dict.fromkeys(names, LOOPBACK):
        write_partners(chain, wanted, hosts)
    return chain


def write_partners(chain: Chain, wanted: Iterable[frozenset[str]], hosts: Mapping[str, str]) -> None:
    """Write into each node's settings where its partners are, and where it listens itself."""
    pairs = set(wanted)
    for name, coop in chain.coops.items():
        path = coop.folder / "node.toml"
        text = path.read_text(encoding="utf-8").partition("\n[[federation.peers]]")[0]
        head, _, tail = text.partition("\n[log]\n")
        if not tail:
            head, tail = text, path.read_text(encoding="utf-8").split("\n[log]\n")[1]
        for other in sorted(next(iter(pair - {name})) for pair in pairs if name in pair):
            partner = chain.coops[other]
            address = f"/ip4/{hosts[other]}/tcp/{partner.libp2p_port}"
            head += f'\n[[federation.peers]]\nledger = "{partner.ledger.hex()}"\naddresses = {json.dumps([address])}\n'
        path.write_text(f"{head}\n[log]\n{tail}", encoding="utf-8")


def _peer(chain: Chain, nodes: Mapping[str, Raised], first: str, second: str) -> None:
    sides = [chain.coops[name].side() for name in (first, second)]
    own = [decider_of(side, tuple(sides), len(sides)) for side in sides if side.ledger != chain.coops[chain.hub].ledger]
    statement = draft_peering(sides[0], sides[1], (*own, chain.hub_policy()), rate=PAR)
    signatures = [sign_statement(Signer(chain.coops[name].keys.seed("agent")), statement) for name in (first, second)]
    for name in (first, second):
        payload = peered(statement, signatures)
        ledger = chain.coops[name].ledger
        entry = build_entry(ledger, "federation.peer", payload, author=BOARD, signers=(BOARD_KEY,), now_ms=wall_ms())
        nodes[name].must_post(entry)
    chain.peerings[frozenset((first, second))] = decode_peering(statement)


def send_entry(chain: Chain, draft: Draft, payer: Actor, payee: Actor) -> Entry:
    """Return a signed transfer."""
    entry_id, payload = build_send_over(draft, payer.member, payee.member, now_ms=wall_ms(), statutes_version=1)
    return build_entry(
        draft.path[0],
        "federation.send",
        payload,
        author=payer.member,
        signers=(payer.signer,),
        now_ms=wall_ms(),
        entry_id=entry_id,
    )


@contextmanager
def running(chain: Chain, **environment: str) -> Iterator[dict[str, Raised]]:
    """Run the nodes until the block ends; name -> process."""
    with contextlib.ExitStack() as stack:
        nursery = stack.enter_context(Nursery())
        nodes = {name: Raised(nursery, coop.folder, **SETTINGS | environment) for name, coop in chain.coops.items()}
        for node in nodes.values():
            node.start()
        for node in nodes.values():
            node.address()
        yield nodes
