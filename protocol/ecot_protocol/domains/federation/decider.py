# SPDX-License-Identifier: AGPL-3.0-or-later
"""The decider's side of a courier: commit or abort once, have the decision witnessed, show it to whoever waits.

promised to a payee here        ->  commit: the promise holds the promises of all ledgers before
all promises brought            ->  commit, if what we ourselves promised of it is durable
asked for an abort              ->  abort, from the earliest abort on; before it, for the payer's ledger alone, unless
                                    a payee was promised here
a promise refused here          ->  abort at once: the memory of the decision keeps a late promise out
decided                         ->  collect cosignatures for a checkpoint that shows it, show it
"""

from collections.abc import Callable, Iterator

import msgspec

from ecot_protocol.domains.federation.deals import Contract, Deal, Round, decode_deal
from ecot_protocol.domains.federation.decision_witnessing import DecisionQuorum
from ecot_protocol.domains.federation.decisions import DECIDE, DECIDE_TAG, Decide, accepted_policies, is_quorum
from ecot_protocol.domains.federation.messages import DecisionShown, Promised, Unheard
from ecot_protocol.domains.federation.outputs import Output, Tell
from ecot_protocol.domains.federation.state import Promised as PromisedRow
from ecot_protocol.domains.federation.statements import DecisionPolicy, Witness
from ecot_protocol.domains.federation.work import Work, remember
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.wire.statement import is_statement_signed


class _Collected(msgspec.Struct):
    """The promises that were brought of a round."""

    contract: bytes
    signatures: dict[bytes, bytes]


class Decider:
    """Decide deals that name our log.

    Args:
        work: shared with the rest of the courier.
        quorum: of our decision log.
        offer: takes part in a round ourselves, if we don't yet.
        take: takes a decision that is shown to others, for deals that we ourselves promised.
    """

    def __init__(
        self,
        work: Work,
        quorum: DecisionQuorum,
        offer: Callable[[bytes, int], Iterator[Output]],
        take: Callable[[DecisionShown], None],
    ) -> None:
        self._work = work
        self._state = work.state
        self._quorum = quorum
        self._offer = offer
        self._take = take
        self._askers: dict[bytes, set[bytes]] = {}
        self._rounds: dict[bytes, _Collected] = {}

    # --- questions --------------------------------------------------------------------------------------------------

    def asked(self, sender: bytes, tid: bytes, now_ms: int) -> Iterator[Output]:
        """Answer what became of a deal."""
        if tid in self._state.federation.decisions:
            self._askers.setdefault(tid, set()).add(sender)
            yield from self.show(tid, now_ms)
        elif self._needs_acceptance(sender, tid):
            yield Tell(sender, Unheard(tid))
        elif self._work.is_known(tid) or tid in self._work.under_way or tid in self._rounds:
            yield Tell(sender, Promised(tid))
        else:
            yield Tell(sender, Unheard(tid))

    def _needs_acceptance(self, sender: bytes, tid: bytes) -> bool:
        """Tell whether this is a round for which we lack (perhaps since a crash) the sender's acceptance."""
        promised = self._work.promised(tid)
        collected = self._rounds.get(tid)
        is_round = collected is not None or (promised is not None and promised.role == "clearing")
        return is_round and (collected is None or sender not in collected.signatures)

    def accepted(self, sender: bytes, contract: bytes, promises: tuple[bytes, ...], now_ms: int) -> Iterator[Output]:
        """Take promises of a deal.

        Raises:
            RemoteProtocolError: they do not hold.
        """
        deal = decode_deal(contract)
        if deal.decider != self._work.ledger or sender not in deal.ledgers:
            return
        if deal.tid in self._state.federation.decisions:
            yield from self.asked(sender, deal.tid, now_ms)
        elif isinstance(deal.terms, Round):
            yield from self._accepted_round(sender, deal, contract, promises[0], now_ms)
        else:
            yield from self._accepted_transfer(sender, deal, contract, promises, now_ms)

    def _accepted_transfer(
        self, sender: bytes, deal: Deal, contract: bytes, promises: tuple[bytes, ...], now_ms: int
    ) -> Iterator[Output]:
        payload = Decide(acceptances=promises, contract=contract, outcome="commit", tid=deal.tid)
        if deal.tid not in self._work.under_way and self._may_commit(deal):
            reason = DECIDE.evidence(payload)
            if reason is not None:
                raise RemoteProtocolError(reason.code)
            remember(self._work.contracts, deal.tid, contract)
            yield self._work.append("commit", (deal.tid,), (DECIDE_TAG, payload), now_ms)
        yield Tell(sender, Promised(deal.tid))

    def _may_commit(self, deal: Deal) -> bool:
        """Tell whether what we ourselves promise of a deal is durable."""
        promised = self._work.promised(deal.tid)
        return self._work.ledger not in deal.ledgers or (promised is not None and self._work.is_durable(promised))

    def _accepted_round(
        self, sender: bytes, deal: Deal, contract: bytes, signature: bytes, now_ms: int
    ) -> Iterator[Output]:
        agent = deal.terms.agents[deal.ledgers.index(sender)]
        if not is_statement_signed(agent, contract, signature):
            raise RemoteProtocolError("bad_signature")
        if deal.tid not in self._rounds:
            remember(self._rounds, deal.tid, _Collected(contract, {}))
        self._rounds[deal.tid].signatures[sender] = signature
        yield Tell(sender, Promised(deal.tid))
        promised = self._work.promised(deal.tid)
        if self._work.ledger not in deal.ledgers:
            yield from self._commit_round(deal.tid, now_ms)
        elif promised is None:
            yield from self._offer(contract, now_ms)
        elif self._work.is_durable(promised):
            yield from self.lead(deal.tid, promised, now_ms)

    def abort_asked(self, sender: bytes, contract: bytes, now_ms: int) -> Iterator[Output]:
        """Take the wish of a ledger that is bound to end a deal.

        Raises:
            RemoteProtocolError: it isn't sound.
        """
        deal = decode_deal(contract)
        if deal.decider != self._work.ledger or sender not in deal.ledgers:
            return
        if deal.tid in self._state.federation.decisions:
            yield from self.asked(sender, deal.tid, now_ms)
        elif deal.tid not in self._work.under_way and self._may_abort(sender, deal, now_ms):
            yield self.abort(deal.tid, contract, now_ms)

    def _may_abort(self, sender: bytes, deal: Deal, now_ms: int) -> bool:
        promised = self._work.promised(deal.tid)
        if promised is not None and promised.role == "payee":  # all is promised: it is about to be committed
            return False
        return now_ms >= deal.earliest_abort_ms or (isinstance(deal.terms, Contract) and sender == deal.ledgers[0])

    def abort(self, tid: bytes, contract: bytes | None, now_ms: int) -> Output:
        """Decide abort; the statement may be left out where a promise stands here."""
        if contract is not None:
            remember(self._work.contracts, tid, contract)
        payload = Decide(acceptances=(), contract=contract, outcome="abort", tid=tid)
        return self._work.append("abort", (tid,), (DECIDE_TAG, payload), now_ms)

    # --- deals of ours ----------------------------------------------------------------------------------------------

    def lead(self, tid: bytes, promised: PromisedRow, now_ms: int) -> Iterator[Output]:
        """Go on with a deal that is ours to decide and promised here, durably, but not decided yet."""
        if promised.role == "payee":
            payload = Decide(acceptances=(), contract=None, outcome="commit", tid=tid)
            yield self._work.append("commit", (tid,), (DECIDE_TAG, payload), now_ms)
        elif now_ms >= promised.earliest_abort_ms:
            yield self.abort(tid, None, now_ms)
        elif tid in self._rounds:
            yield from self._commit_round(tid, now_ms)

    def _commit_round(self, tid: bytes, now_ms: int) -> Iterator[Output]:
        collected = self._rounds[tid]
        deal = decode_deal(collected.contract)
        if self._work.ledger in deal.ledgers:
            collected.signatures[self._work.ledger] = self._work.sign(collected.contract)
        if tid in self._work.under_way or any(one not in collected.signatures for one in deal.ledgers):
            return
        acceptances = tuple(collected.signatures[one] for one in deal.ledgers)
        payload = Decide(acceptances=acceptances, contract=collected.contract, outcome="commit", tid=tid)
        remember(self._work.contracts, tid, collected.contract)
        yield self._work.append("commit", (tid,), (DECIDE_TAG, payload), now_ms)

    def decided(self, tid: bytes) -> None:
        """Learn that a decision is durable: all whom the deal binds are shown it."""
        contract = self._work.contracts.get(tid)
        if contract is not None and self._work.ledger == decode_deal(contract).decider:
            peers = self._state.federation.peers
            bound = {ledger for ledger in decode_deal(contract).ledgers if ledger in peers}
            if bound:  # nobody waits for a round among our own members
                self._askers.setdefault(tid, set()).update(bound)

    def forget(self, tid: bytes) -> None:
        """Forget what was collected for a deal."""
        self._rounds.pop(tid, None)

    # --- decisions, and who waits for them --------------------------------------------------------------------------

    def tick(self, now_ms: int) -> Iterator[Output]:
        """Go on with decisions that are asked for by others alone."""
        for tid in [*self._askers]:
            if tid not in self._state.federation.promises and self._work.is_due(tid, now_ms):
                yield from self.show(tid, now_ms)

    def show_all(self, now_ms: int) -> Iterator[Output]:
        """Show every decision that somebody waits for, as far as it is witnessed."""
        for tid in [*self._waiting()]:
            yield from self.show(tid, now_ms)

    def _waiting(self) -> Iterator[bytes]:
        """Yield deals decided here that are not resolved here, or that somebody asked for."""
        decisions = self._state.federation.decisions
        yield from (tid for tid in self._state.federation.promises if tid in decisions)
        yield from (tid for tid in self._askers if tid not in self._state.federation.promises)

    def show(self, tid: bytes, now_ms: int) -> Iterator[Output]:
        """Bring a decision of our log to whoever waits for it, or work on its cosignatures."""
        decided = self._state.federation.decisions.get(tid)
        if decided is None or decided.number >= self._quorum.tree.size or not self._is_awaited(tid):
            return
        policies, log = self._policies(tid), self._work.own_log
        is_enough = any(is_quorum(policy, log, self._quorum.cosigners) for policy in policies)
        if is_enough and decided.number < self._quorum.target_size:
            yield from self._tell(tid)
            return
        if decided.number >= self._quorum.target_size and not self._is_target_needed():
            self._quorum.aim(now_ms)
        yield from self._quorum.push({one.ledger for policy in policies for one in policy.witnesses})

    def _is_awaited(self, tid: bytes) -> bool:
        return tid in self._askers or self._work.promised(tid) is not None

    def _tell(self, tid: bytes) -> Iterator[Output]:
        """Show a decision to all who wait for it, ourselves among them."""
        shown = DecisionShown(self._quorum.checkpoint(self._quorum.cosigners), self._quorum.prove(tid))
        promised = self._work.promised(tid)
        waiting = self._askers.pop(tid, set()) | set(promised.partners if promised is not None else ())
        for ledger in sorted(waiting):
            yield Tell(ledger, shown)
        self._take(shown)

    def _is_target_needed(self) -> bool:
        """Tell whether a deal that waits is shown by the present target, whose cosignatures are not complete."""
        size, log = self._quorum.target_size, self._work.own_log
        for tid in self._waiting():
            decided = self._state.federation.decisions.get(tid)
            if decided is not None and decided.number < size:
                policies = self._policies(tid)
                if not any(is_quorum(one, log, self._quorum.cosigners) for one in policies):
                    return True
        return False

    def _policies(self, tid: bytes) -> tuple[DecisionPolicy, ...]:
        promised = self._work.promised(tid)
        found = [] if promised is None else [*accepted_policies(self._state, promised)]
        for asker in sorted(self._askers.get(tid, ())):
            peer = self._state.federation.peers.get(asker)
            policy = None if peer is None else peer.peering.decider(self._work.ledger)
            if policy is not None and policy not in found:
                found.append(policy)
        return tuple(found)

    def witnesses(self) -> set[Witness]:
        """Return every witness that may count for our log: of the peerings, and of deals agreed under older ones."""
        found: set[Witness] = set()
        for peer in self._state.federation.peers.values():
            policy = peer.peering.decider(self._work.ledger)
            found |= set(policy.witnesses) if policy is not None else set()
        for promised in self._state.federation.promises.values():
            if promised.decision.ledger == self._work.ledger:
                found |= set(promised.decision.witnesses)
        return found
