# SPDX-License-Identifier: AGPL-3.0-or-later
"""One history of a federation without bad luck, for the vectors: what its ledgers record follows from nothing but this.

Four cooperatives peer; members pay over one hop, over three, and to nobody; two rounds of clearing are called, one of
what members owe each other and one of what the ledgers do.
"""

from federation_kit import FederatedKit
from federation_world import CHAOS_MS
from netting_kit import call_of
from netting_world import NettingWorld

SEED = 3


def live_calmly() -> tuple[FederatedKit, ...]:
    """Return the four ledgers as they stand at the end."""
    world = NettingWorld(SEED, with_crashes=False)
    assert world.count == 4, "choose another seed"
    world.loss, world.start_ms = 0.0, world.now - CHAOS_MS
    nodes = [*world.nodes.values()]
    for number, node in enumerate(nodes):
        node.skew_ms = 0
        after = nodes[(number + 1) % len(nodes)]
        world.pay_over([node, after], after.member.member, 500 + number, after)
    world.pay_over(nodes, nodes[-1].member.member, 333, nodes[1])
    world.pay_over(nodes[:2], bytes(16), 7, nodes[1])
    world.live(until_quiet_from=world.now + 3_000)
    for number, unit in enumerate(("EUR", "BART")):
        raw = call_of([node.kit for node in nodes], nodes[0].kit, world.now, nonce=bytes([number]) * 16, unit=unit)
        nodes[1].do(nodes[1].courier.call(raw, nodes[1].now))
        world.live(until_quiet_from=world.now + 30_000)
    return tuple(node.kit for node in nodes)
