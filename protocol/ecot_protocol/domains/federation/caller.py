# SPDX-License-Identifier: AGPL-3.0-or-later
"""The two sides of a round of clearing before its deals: the board, kept by the decider, and those who are called.

    board:   a call comes in        ->  tells all whom it calls, until their time to commit is over
             roots, then reveals    ->  keeps them; shows who committed and, once closed, whose reveals count
             solutions              ->  keeps the best; closes once all have sent one, or in time
    called:  a call                 ->  record `clear_commit`, send the root until the board has it
             commits are closed     ->  reveal
             reveals are closed     ->  fetch them, match, let the host solve, send the solution
             solutions are closed   ->  fetch the best, check it, take part in its deals, which follow from it

All of it is kept in memory and can be lost: who loses it falls silent in this round, until its deals are accepted; from
then on they are deals like any other. The board judges nothing that others could not check: a root binds what is
revealed, the matched debts follow from the reveals, and nobody takes part in a solution worse than its own.
"""

from collections.abc import Iterator
from hashlib import sha256
from typing import Final, NamedTuple

import msgspec

from ecot_protocol.domains.federation.calls import CLEAR_COMMIT, ClearCommit, find_call_problem, offers_of
from ecot_protocol.domains.federation.netting import (
    REVEAL,
    SOLUTION,
    Called,
    Matched,
    Reveal,
    Solution,
    decode_call,
    decode_reveal,
    find_solution_problem,
    match,
    rank,
    reveal_root,
    split,
)
from ecot_protocol.domains.federation.netting_messages import (
    AskBest,
    AskBoard,
    AskReveal,
    Board,
    CallShown,
    Committed,
    Revealed,
    Root,
    Solved,
)
from ecot_protocol.domains.federation.outputs import Append, KeepRound, Output, Solve, Tell
from ecot_protocol.domains.federation.rounds import accepts_policy
from ecot_protocol.domains.federation.statements import encode_terms
from ecot_protocol.domains.federation.work import Work
from ecot_protocol.errors import RemoteProtocolError
from ecot_protocol.wire.encoding import Codec, Count, Hash, Id, Wire, WireArray
from ecot_protocol.wire.statement import is_statement_signed

MAX_OPEN: Final = 16
"""Rounds that one node keeps in memory at a time, on each side."""
MAX_OPEN_EACH: Final = 4
"""Of these, called by one partner, or by one board."""
MAX_REVEALED_BYTES: Final = 4_194_304
"""Reveals of one round, together; what comes beyond does not count."""
MAX_SOLUTIONS_EACH: Final = 4
"""Solutions that a board looks at, of one ledger in one round."""


class RootSaid(Wire):
    """Payload of the statement by which a ledger says its root to others."""

    call: Id
    root: Hash


def root_statement(ledger: bytes, call: bytes, root: bytes) -> bytes:
    """Return what an agent signs when it commits."""
    return encode_terms("clearing_root", RootSaid(call=call, root=root), (ledger,))


class RevealKept(WireArray):
    """What the ledger at `place` revealed."""

    place: Count
    reveal: bytes


class RoundKept(WireArray):
    """All that is needed to check a round again, as kept by `KeepRound`; `read_round` reads it."""

    call: bytes
    roots: tuple[Root, ...]
    reveals: tuple[RevealKept, ...]
    solution: bytes


ROUND_KEPT: Final = Codec(RoundKept)


class CheckedRound(NamedTuple):
    """A round that was checked again: the call, what matched, what was cleared, the statements of its deals."""

    called: Called
    matched: Matched
    solution: Solution
    deals: tuple[bytes, ...]


def read_round(raw: bytes) -> CheckedRound:
    """Check a round again from what was kept of it: roots signed, reveals as committed to, the flow, its deals.

    Raises:
        RemoteProtocolError: ``round_unsound``, or a code of one of its parts.
    """
    kept = ROUND_KEPT.decode(raw)
    called = decode_call(kept.call)
    roots = {root.place: root for root in kept.roots}
    total = len(called.ledgers)
    reveals = {one.place: decode_reveal(one.reveal, one.place, total) for one in kept.reveals}
    for place, reveal in reveals.items():
        root = roots.get(place)
        if root is None or place >= total or root.root != reveal_root(reveal):
            raise RemoteProtocolError("round_unsound", f"ledger {place} revealed what it had not committed to")
        said = root_statement(called.ledgers[place], called.id, root.root)
        if not is_statement_signed(called.terms.agents[place], said, root.signature):
            raise RemoteProtocolError("round_unsound", f"ledger {place} did not sign its root")
    matched, solution = match(called, reveals), SOLUTION.decode(kept.solution)
    problem = find_solution_problem(matched, solution)
    if problem is not None:
        raise RemoteProtocolError("round_unsound", problem)
    return CheckedRound(called, matched, solution, split(called, matched, solution))


class _BoardRound(msgspec.Struct):
    """A round whose board we keep."""

    caller: bytes
    called: Called
    raw: bytes
    roots: dict[int, Root]
    reveals: dict[int, bytes]
    solution_counts: dict[bytes, int] = msgspec.field(default_factory=dict)
    matched: Matched | None = None
    best: Solution | None = None
    solvers: set[bytes] = msgspec.field(default_factory=set)
    is_over: bool = False


class Boards:
    """The boards of the rounds that our log decides.

    Args:
        work: shared with the rest of the courier.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._rounds: dict[bytes, _BoardRound] = {}

    def open(self, sender: bytes, raw: bytes, now_ms: int) -> Iterator[Output]:
        """Take a call to a round that we are to decide, and tell all whom it calls.

        Raises:
            RemoteProtocolError: ``call_unsound``, ``decider_not_accepted``, ``too_many_calls``.
        """
        called = decode_call(raw)
        policy = called.terms.decision
        if sender != self._work.ledger and sender not in called.ledgers:
            return
        if policy.ledger != self._work.ledger or not accepts_policy(self._work.state, policy):
            raise RemoteProtocolError("decider_not_accepted", policy.ledger.hex())
        if called.id in self._rounds or now_ms >= called.terms.commit_by_ms:
            return
        self._forget(now_ms)
        of_sender = sum(1 for one in self._rounds.values() if one.caller == sender)
        if len(self._rounds) >= MAX_OPEN or of_sender >= MAX_OPEN_EACH:
            raise RemoteProtocolError("too_many_calls", f"at most {MAX_OPEN_EACH}")
        self._rounds[called.id] = _BoardRound(sender, called, raw, {}, {})
        yield from self._call(self._rounds[called.id])

    def _forget(self, now_ms: int) -> None:
        over = [one for one, round_ in self._rounds.items() if now_ms >= round_.called.terms.earliest_abort_ms]
        for one in over:
            del self._rounds[one]

    def _call(self, round_: _BoardRound) -> Iterator[Output]:
        for place, ledger in enumerate(round_.called.ledgers):
            if place not in round_.roots:
                yield Tell(ledger, CallShown(round_.raw))

    def tick(self, now_ms: int) -> Iterator[Output]:
        """Call again those who have not committed, and close what is due."""
        for call, round_ in [*self._rounds.items()]:
            if self._is_committing(round_, now_ms) and self._work.is_due(b"board" + call, now_ms):
                yield from self._call(round_)
            self._close(round_, now_ms)

    @staticmethod
    def _is_committing(round_: _BoardRound, now_ms: int) -> bool:
        return len(round_.roots) < len(round_.called.ledgers) and now_ms < round_.called.terms.commit_by_ms

    def _close(self, round_: _BoardRound, now_ms: int) -> None:
        if self._is_committing(round_, now_ms):
            return
        terms = round_.called.terms
        if round_.matched is None and (len(round_.reveals) == len(round_.roots) or now_ms >= terms.reveal_by_ms):
            total = len(round_.called.ledgers)
            reveals = {place: decode_reveal(raw, place, total) for place, raw in round_.reveals.items()}
            round_.matched = match(round_.called, reveals)
        if round_.matched is not None and now_ms >= terms.propose_by_ms:
            round_.is_over = True

    def committed(self, sender: bytes, message: Committed, now_ms: int) -> Iterator[Output]:
        """Take a root."""
        round_ = self._rounds.get(message.call)
        if round_ is None or sender not in round_.called.ledgers:
            return
        place = round_.called.ledgers.index(sender)
        said = root_statement(sender, message.call, message.root)
        if not is_statement_signed(round_.called.terms.agents[place], said, message.signature):
            raise RemoteProtocolError("bad_signature")
        if self._is_committing(round_, now_ms):
            round_.roots.setdefault(place, Root(place, message.root, message.signature))
        self._close(round_, now_ms)
        yield from self.asked(sender, message.call, now_ms)

    def revealed(self, sender: bytes, message: Revealed, now_ms: int) -> Iterator[Output]:
        """Take a reveal, if it is the one that the ledger committed to."""
        round_ = self._rounds.get(message.call)
        if round_ is None or sender not in round_.called.ledgers or self._is_committing(round_, now_ms):
            return
        place = round_.called.ledgers.index(sender)
        is_open = round_.matched is None and now_ms < round_.called.terms.reveal_by_ms
        if is_open and place in round_.roots and place not in round_.reveals:
            reveal = decode_reveal(message.reveal, place, len(round_.called.ledgers))
            if reveal_root(reveal) != round_.roots[place].root:
                raise RemoteProtocolError("reveal_unsound", "not what was committed to")
            if sum(map(len, round_.reveals.values())) + len(message.reveal) > MAX_REVEALED_BYTES:
                raise RemoteProtocolError("reveal_unsound", f"a round has at most {MAX_REVEALED_BYTES} bytes")
            round_.reveals[place] = message.reveal
            self._close(round_, now_ms)
        yield from self.asked(sender, message.call, now_ms)

    def solved(self, sender: bytes, message: Solved, now_ms: int) -> Iterator[Output]:
        """Take a solution, if it is the best so far; one that is proved to be the most ends the search."""
        round_ = self._rounds.get(message.call)
        if round_ is None or round_.matched is None or round_.is_over or sender not in round_.called.ledgers:
            return
        round_.solution_counts[sender] = round_.solution_counts.get(sender, 0) + 1
        if round_.solution_counts[sender] > MAX_SOLUTIONS_EACH:  # each costs time in the number of debts
            yield from self.asked(sender, message.call, now_ms)
            return
        solution = SOLUTION.decode(message.solution)
        problem = find_solution_problem(round_.matched, solution)
        if problem is not None:
            raise RemoteProtocolError("solution_unsound", problem)
        if round_.best is None or rank(solution) < rank(round_.best):
            round_.best = solution
        # Several may clear as much, and the lowest hash wins: so all whose reveals count are waited for, in time.
        round_.solvers.add(sender)
        counted = {round_.called.ledgers[place] for place in round_.reveals}
        round_.is_over = counted <= round_.solvers or now_ms >= round_.called.terms.propose_by_ms
        yield from self.asked(sender, message.call, now_ms)

    def asked(self, sender: bytes, call: bytes, now_ms: int) -> Iterator[Output]:
        """Show how a round stands."""
        round_ = self._rounds.get(call)
        if round_ is None or sender not in round_.called.ledgers:
            return
        self._close(round_, now_ms)
        yield Tell(
            sender,
            Board(
                call,
                tuple(round_.roots[place] for place in sorted(round_.roots)),
                not self._is_committing(round_, now_ms),
                tuple(sorted(round_.reveals)) if round_.matched is not None else None,
                round_.is_over and round_.best is not None,
            ),
        )

    def asked_reveal(self, sender: bytes, message: AskReveal) -> Iterator[Output]:
        """Show what a ledger revealed, once the reveals are closed."""
        round_ = self._rounds.get(message.call)
        if round_ is not None and sender in round_.called.ledgers and round_.matched is not None:
            raw = round_.reveals.get(message.place)
            yield from () if raw is None else (Tell(sender, Revealed(message.call, message.place, raw)),)

    def asked_best(self, sender: bytes, call: bytes) -> Iterator[Output]:
        """Show the solution that won."""
        round_ = self._rounds.get(call)
        if round_ is not None and sender in round_.called.ledgers and round_.is_over and round_.best is not None:
            yield Tell(sender, Solved(call, SOLUTION.encode(round_.best)))


class _CalledRound(msgspec.Struct):
    """A round that we were called to.

    Attributes:
        reveal: what we committed to.
        is_recorded: our commitment is durable.
        roots: place -> root, by the board; signed.
        counted: places whose reveals count; None until the board has closed them.
        reveals: place -> what was revealed there.
        own: our solution, or another's that we checked.
        is_settled: we took part in the best one, or found it wrong.
    """

    called: Called
    raw: bytes
    reveal: Reveal
    is_recorded: bool = False
    roots: dict[int, Root] = msgspec.field(default_factory=dict)
    counted: tuple[int, ...] | None = None
    reveals: dict[int, bytes] = msgspec.field(default_factory=dict)
    matched: Matched | None = None
    own: Solution | None = None
    is_closed: bool = False
    is_settled: bool = False


class Caller:
    """Our part in rounds that we are called to.

    Args:
        work: shared with the rest of the courier.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._rounds: dict[bytes, _CalledRound] = {}
        self._expected: list[bytes] = []

    def called(self, sender: bytes, raw: bytes, now_ms: int) -> Iterator[Output]:
        """Take part in a round, if its board calls us and our rules let us.

        Raises:
            RemoteProtocolError: why not.
        """
        called = decode_call(raw)
        if sender != called.terms.decision.ledger:
            return
        if called.id in self._rounds or called.id in self._work.under_way:
            return
        reason = find_call_problem(self._work.state, called, now_ms)
        if reason is not None:
            raise RemoteProtocolError(reason.code)
        over = [one for one, round_ in self._rounds.items() if now_ms >= round_.called.terms.earliest_abort_ms]
        for one in over:
            del self._rounds[one]
        of_board = sum(1 for one in self._rounds.values() if one.called.terms.decision.ledger == sender)
        if len(self._rounds) >= MAX_OPEN or of_board >= MAX_OPEN_EACH:
            raise RemoteProtocolError("too_many_calls", f"at most {MAX_OPEN_EACH}")
        # Ed25519 is deterministic: nobody else can find the salt, and we need no randomness to make it.
        salt = sha256(self._work.agent.sign(b"ecot/reveal/v1\n" + called.id)).digest()
        reveal = offers_of(self._work.state, called, salt)
        self._rounds[called.id] = _CalledRound(called, raw, reveal)
        count = 1 + len(reveal.partners) + len(reveal.members)
        payload = ClearCommit(call=raw, count=count, root=reveal_root(reveal))
        yield self._work.append("commit_offers", (called.id,), (CLEAR_COMMIT.tag, payload), now_ms)

    def recorded(self, append: Append, now_ms: int) -> Iterator[Output]:
        """Learn that a commitment of ours is durable."""
        for call in append.tids:
            if call in self._rounds:
                self._rounds[call].is_recorded = True
                yield from self._go_on(self._rounds[call], now_ms)

    def refused(self, append: Append) -> None:
        """Learn that our commitment was refused: we stay out of the round."""
        for call in append.tids:
            self._rounds.pop(call, None)

    def tick(self, now_ms: int) -> Iterator[Output]:
        """Do what is due in each round."""
        for call, round_ in [*self._rounds.items()]:
            if now_ms >= round_.called.terms.earliest_abort_ms:
                del self._rounds[call]
            elif round_.is_recorded and not round_.is_settled and self._work.is_due(call, now_ms):
                yield from self._go_on(round_, now_ms)

    def _go_on(self, round_: _CalledRound, now_ms: int) -> Iterator[Output]:
        call, board, own = round_.called.id, round_.called.terms.decision.ledger, self._own_place(round_)
        if own not in round_.roots:
            root = reveal_root(round_.reveal)
            signature = self._work.sign(root_statement(self._work.ledger, call, root))
            yield Tell(board, Committed(call, root, signature))
        elif round_.counted is None:
            if round_.is_closed:
                yield Tell(board, Revealed(call, own, REVEAL.encode(round_.reveal)))
            else:
                yield Tell(board, AskBoard(call))
        elif round_.matched is None:
            for place in round_.counted:
                if place not in round_.reveals:
                    yield Tell(board, AskReveal(call, place))
        elif now_ms < round_.called.terms.propose_by_ms and round_.own is not None:
            yield Tell(board, Solved(call, SOLUTION.encode(round_.own)))
        else:
            yield Tell(board, AskBest(call))

    def _own_place(self, round_: _CalledRound) -> int:
        return round_.called.ledgers.index(self._work.ledger)

    def shown(self, sender: bytes, message: Board, now_ms: int) -> Iterator[Output]:
        """Learn how a round stands."""
        round_ = self._of_board(sender, message.call)
        if round_ is None:
            return
        before = (len(round_.roots), round_.is_closed, round_.counted)
        for root in message.roots:
            self._take_root(round_, root)
        round_.is_closed = round_.is_closed or message.is_closed
        if message.counted is not None and round_.counted is None and set(message.counted) <= set(round_.roots):
            round_.counted = message.counted
        if before != (len(round_.roots), round_.is_closed, round_.counted):
            self._work.hurry(message.call)
            yield from self._go_on(round_, now_ms)
        elif message.is_over and round_.matched is not None and not round_.is_settled:
            yield Tell(sender, AskBest(message.call))

    def _of_board(self, sender: bytes, call: bytes) -> _CalledRound | None:
        round_ = self._rounds.get(call)
        return round_ if round_ is not None and sender == round_.called.terms.decision.ledger else None

    @staticmethod
    def _take_root(round_: _CalledRound, root: Root) -> None:
        """Keep a root that its ledger signed; the first one counts."""
        if root.place in round_.roots or root.place >= len(round_.called.ledgers):
            return
        said = root_statement(round_.called.ledgers[root.place], round_.called.id, root.root)
        if is_statement_signed(round_.called.terms.agents[root.place], said, root.signature):
            round_.roots[root.place] = root

    def revealed(self, sender: bytes, message: Revealed, now_ms: int) -> Iterator[Output]:
        """Take what another ledger revealed; with the last of them, match and let the host solve."""
        round_ = self._of_board(sender, message.call)
        if round_ is None or round_.matched is not None or message.place not in round_.roots:
            return
        size_bytes = sum(map(len, round_.reveals.values())) + len(message.reveal)
        if message.place in round_.reveals or size_bytes > MAX_REVEALED_BYTES:
            return
        reveal = decode_reveal(message.reveal, message.place, len(round_.called.ledgers))
        if reveal_root(reveal) != round_.roots[message.place].root:
            raise RemoteProtocolError("reveal_unsound", "not what was committed to")
        round_.reveals[message.place] = message.reveal
        if round_.counted is None or any(place not in round_.reveals for place in round_.counted):
            return
        total = len(round_.called.ledgers)
        counted = {place: decode_reveal(round_.reveals[place], place, total) for place in round_.counted}
        round_.matched = match(round_.called, counted)
        self._work.hurry(message.call)
        round_.is_settled = not round_.matched.edges
        if round_.matched.edges:
            yield Solve(message.call, round_.matched)

    def found(self, call: bytes, solution: Solution, now_ms: int) -> Iterator[Output]:
        """Take the host's answer to a `Solve`.

        Raises:
            RemoteProtocolError: ``solution_unsound``.
        """
        round_ = self._rounds.get(call)
        if round_ is None or round_.matched is None or round_.is_settled:
            return
        problem = find_solution_problem(round_.matched, solution)
        if problem is not None:
            raise RemoteProtocolError("solution_unsound", problem)
        round_.own = solution
        yield from self._go_on(round_, now_ms)

    def best(self, sender: bytes, message: Solved) -> Iterator[Output]:
        """Take the solution that won; check it, keep the round, and expect its deals."""
        round_ = self._of_board(sender, message.call)
        if round_ is None or round_.matched is None or round_.is_settled:
            return
        solution = SOLUTION.decode(message.solution)
        problem = find_solution_problem(round_.matched, solution)
        if problem is not None:
            raise RemoteProtocolError("solution_unsound", problem)
        if round_.own is not None and sum(solution.flows) < sum(round_.own.flows):
            raise RemoteProtocolError("solution_unsound", "ours clears more")
        round_.is_settled = True
        kept = RoundKept(
            round_.raw,
            tuple(round_.roots[place] for place in sorted(round_.roots)),
            tuple(RevealKept(place, round_.reveals[place]) for place in round_.counted or ()),
            message.solution,
        )
        yield KeepRound(message.call, ROUND_KEPT.encode(kept))
        self._expected += split(round_.called, round_.matched, solution)

    def take_expected(self) -> list[bytes]:
        """Return the statements of deals that follow from solutions that we checked since we were asked last."""
        expected, self._expected = self._expected, []
        return expected
