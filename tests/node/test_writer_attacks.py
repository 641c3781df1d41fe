# SPDX-License-Identifier: AGPL-3.0-or-later
"""What strangers can make the writer do: little."""

import pytest
from ledger_kit import LedgerKit, seed
from writer_kit import entries_of, make_writer

from ecot_node.store.memory import MemoryStore
from ecot_protocol.domains.federation.decisions import Decide
from ecot_protocol.machine import Submission
from ecot_protocol.wire.keys import Signer
from ecot_protocol.wire.reply import Refused


@pytest.mark.parametrize("signers", [(), (Signer(seed("stranger")),)], ids=["unsigned", "signed by a stranger"])
async def test_evidence_of_a_stranger_is_not_looked_at(
    signers: tuple[Signer, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[Submission] = []
    kit = LedgerKit()

    def note(submission: Submission) -> None:
        looked_at.append(submission)

    monkeypatch.setattr(Submission, "find_bad_evidence", note)
    writer = make_writer(MemoryStore(), kit)
    await writer.start()
    await writer.submit(entries_of(kit))
    decide = Decide(acceptances=(), contract=None, outcome="abort", tid=bytes(16))
    reply = await writer.submit([kit.entry("federation.decide", decide, author=None, signers=signers)])
    assert isinstance(reply.outcomes[0], Refused)
    assert not looked_at
    await writer.submit([kit.entry("federation.decide", decide, author=None, signers=(kit.agent,))])
    assert len(looked_at) == 1
    await writer.stop()


async def test_wrong_evidence_of_the_node_is_refused() -> None:
    kit = LedgerKit()
    writer = make_writer(MemoryStore(), kit)
    await writer.start()
    await writer.submit(entries_of(kit))
    decide = Decide(acceptances=(bytes(64),), contract=None, outcome="commit", tid=bytes(16))
    reply = await writer.submit([kit.entry("federation.decide", decide, author=None, signers=(kit.agent,))])
    assert reply.outcomes[0] == Refused("evidence_wrong", (("problem", "deal_missing"),))
    await writer.stop()
