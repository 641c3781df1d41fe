# SPDX-License-Identifier: AGPL-3.0-or-later
"""The acts of a trade: propose, accept, confirm, refuse, lapse, reverse. Their order is in `state`.

- The invoice: barter part + euro part = net + VAT, in minor units of one scale (1 barter = 1 EUR). There is a barter
  part; the euro part moves outside the ledger.
- The seller bears the commission, on the whole invoice whatever part is paid in euros: of the net or the gross amount
  by statute, rounded half up. It signs the amount in the proposal, and it is reserved and posted with the barter part.
- Statutes are those of the proposal until the trade is gone, so a trade goes on where the cooperative stops trading.
- A mandate's limits count the whole invoice for the buyer at the acceptance, and what a seller gives back at a
  reversal; the commission of a sale, which the statutes bound, is not counted.
"""

from typing import Any, Final

from ecot_protocol.domains.coop.state import CoopSlice, board_signs
from ecot_protocol.domains.coop.statutes import TradeStatutes
from ecot_protocol.domains.membership.state import SPENDING_REASONS, check_spending, member_signs, note_spending
from ecot_protocol.domains.trade import facts
from ecot_protocol.domains.trade.state import (
    TRADE,
    Trade,
    TradeState,
    reversal_legs,
    trade_legs,
    with_status,
)
from ecot_protocol.domains.trade.transfers import TRANSFER_TYPES
from ecot_protocol.ledger.accounts import ACCOUNT_REASONS
from ecot_protocol.ledger.amounts import Rounding, share
from ecot_protocol.ledger.attachments import LinesCommitment, MemoCommitment
from ecot_protocol.ledger.entry_type import (
    BOARD,
    THE_NODE,
    Act,
    AnyEntryType,
    EntryType,
    SignerRule,
    Visibility,
)
from ecot_protocol.ledger.facts import Fact
from ecot_protocol.ledger.reasons import Reason
from ecot_protocol.wire.encoding import Count, Id, Positive, Wire

EURO: Final = "EUR"
"""The unit of the euro part; where the cooperative declares it, it has the scale of the barter unit."""


class Propose(Wire):
    """Payload of ``trade.propose``: the author, the seller, offers a trade to `buyer` until `expires_at_ms`."""

    barter_minor: Positive
    buyer: Id
    commission_minor: Count
    deliver_by_ms: Count
    euro_minor: Count
    expires_at_ms: Count
    lines: LinesCommitment | None
    memo: MemoCommitment | None
    net_minor: Positive
    statutes_version: Positive
    vat_minor: Count


class Accept(Wire):
    """Payload of ``trade.accept``: the author, the buyer, promises the barter part, which is `total_minor`.

    `statutes_version` is that of the proposal.
    """

    statutes_version: Positive
    total_minor: Positive
    trade: Id


class Confirm(Wire):
    """Payload of ``trade.confirm``: the author, the buyer, has what it bought."""

    trade: Id


class Refuse(Wire):
    """Payload of ``trade.refuse``: either doesn't want an offer, or the seller can't deliver what was accepted."""

    trade: Id


class Lapse(Wire):
    """Payload of ``trade.lapse``: the time to accept, or to deliver, is over."""

    trade: Id


class Reverse(Wire):
    """Payload of ``trade.reverse``: undo a confirmed trade.

    The author is the seller, for which one person signs, and one for `buyer`; or it is the board. `reason` is for the
    parties alone.
    """

    buyer: Id
    reason: MemoCommitment | None
    trade: Id


def commission(rules: TradeStatutes, net_minor: int, vat_minor: int) -> int:
    """Return what the seller owes the cooperative for a trade, in minor units of the commission's unit."""
    base_minor = net_minor + vat_minor if rules.commission_base == "gross" else net_minor
    return share(base_minor, rules.commission_rate, Rounding.HALF_UP)


def _author_trades(state: TradeState, act: Act[Any], at: int) -> SignerRule:
    return member_signs(state, act.author, TRADE, at)


def _check_propose(state: TradeState, act: Act[Propose], at: int) -> Reason | None:
    seller, propose = act.author, act.payload
    assert seller is not None
    version, statutes = state.coop.statutes_at(at)
    if statutes.trade is None:
        return Reason.of("trade_not_offered")
    if propose.statutes_version != version:
        return Reason.of("statutes_version_mismatch", expected=version)
    for member in (seller, propose.buyer):
        if not state.membership.is_active(member):
            return Reason.of("member_not_active", member=member.hex())
    if propose.buyer == seller:
        return Reason.of("trade_with_oneself")
    return _check_amounts(state.coop, propose, statutes.trade) or _check_times(propose, statutes.trade, at)


def _check_amounts(coop: CoopSlice, propose: Propose, rules: TradeStatutes) -> Reason | None:
    gross_minor = propose.net_minor + propose.vat_minor
    if propose.barter_minor + propose.euro_minor != gross_minor:
        return Reason.of("parts_not_total", expected_minor=gross_minor)
    commission_minor = commission(rules, propose.net_minor, propose.vat_minor)
    if propose.commission_minor != commission_minor:
        return Reason.of("commission_mismatch", expected_minor=commission_minor)
    units = (coop.unit(code) for code in (rules.unit, rules.commission_unit, EURO))
    if len({unit.scale for unit in units if unit is not None}) != 1:
        return Reason.of("scale_mismatch")
    return None


def _check_times(propose: Propose, rules: TradeStatutes, at: int) -> Reason | None:
    if not at < propose.expires_at_ms <= at + rules.offer_max_duration_ms:
        return Reason.of("offer_end_out_of_range", latest_ms=at + rules.offer_max_duration_ms)
    if not propose.expires_at_ms <= propose.deliver_by_ms <= at + rules.delivery_max_duration_ms:
        return Reason.of("delivery_end_out_of_range", latest_ms=at + rules.delivery_max_duration_ms)
    return None


def _propose(state: TradeState, act: Act[Propose], at: int) -> list[Fact]:
    propose = act.payload
    rules = state.coop.statutes_of(propose.statutes_version).trade
    assert act.author is not None
    assert rules is not None
    trade = Trade(
        barter_minor=propose.barter_minor,
        buyer=propose.buyer,
        closes_at_ms=propose.expires_at_ms,
        commission_minor=propose.commission_minor,
        commission_unit=rules.commission_unit,
        deliver_by_ms=propose.deliver_by_ms,
        euro_minor=propose.euro_minor,
        seller=act.author,
        status="proposed",
        statutes_version=propose.statutes_version,
        unit=rules.unit,
    )
    state.trade.retire(at)
    state.trade.trades[act.id] = trade
    proposed = facts.TradeProposed(
        **_amounts(act.id, trade),
        net_minor=propose.net_minor,
        vat_minor=propose.vat_minor,
        expires_at_ms=propose.expires_at_ms,
        deliver_by_ms=propose.deliver_by_ms,
        statutes_version=propose.statutes_version,
    )
    return [proposed]


def _amounts(trade_id: bytes, trade: Trade) -> dict[str, Any]:
    """Return the fields of a `TradeFact`."""
    return {
        "trade": trade_id,
        "seller": trade.seller,
        "buyer": trade.buyer,
        "unit": trade.unit,
        "barter_minor": trade.barter_minor,
        "euro_minor": trade.euro_minor,
        "commission_minor": trade.commission_minor,
        "commission_unit": trade.commission_unit,
    }


def _unknown(trade_id: bytes) -> Reason:
    return Reason.of("trade_unknown", trade=trade_id.hex())


def _check_accept(state: TradeState, act: Act[Accept], at: int) -> Reason | None:
    accept = act.payload
    trade = state.trade.trades.get(accept.trade)
    if trade is None:
        return _unknown(accept.trade)
    if act.author != trade.buyer:
        return Reason.of("trade_of_another")
    if trade.status != "proposed":
        return Reason.of("trade_not_proposed")
    if at >= trade.closes_at_ms:
        return Reason.of("offer_over", ended_ms=trade.closes_at_ms)
    if accept.statutes_version != trade.statutes_version:
        return Reason.of("statutes_version_mismatch", expected=trade.statutes_version)
    if accept.total_minor != trade.barter_minor:
        return Reason.of("total_mismatch", expected_minor=trade.barter_minor)
    if state.coop.statutes_at(at)[1].trade is None:
        return Reason.of("trade_not_offered")
    return _check_promise(state, act, trade, at)


def _check_promise(state: TradeState, act: Act[Accept], trade: Trade, at: int) -> Reason | None:
    for member in (trade.buyer, trade.seller):
        if not state.membership.is_active(member):
            return Reason.of("member_not_active", member=member.hex())
    invoice_minor = trade.barter_minor + trade.euro_minor
    reason = check_spending(state, trade.buyer, act.signers, trade.unit, invoice_minor, at)
    return reason or state.accounts.check_reserve(trade_legs(trade))


def _accept(state: TradeState, act: Act[Accept], at: int) -> list[Fact]:
    trade_id = act.payload.trade
    trade = state.trade.trades[trade_id]
    note_spending(state, trade.buyer, act.signers, trade.unit, trade.barter_minor + trade.euro_minor, at)
    state.trade.trades[trade_id] = with_status(trade, "accepted", trade.deliver_by_ms)
    accepted = facts.TradeAccepted(**_amounts(trade_id, trade), deliver_by_ms=trade.deliver_by_ms)
    return [accepted, *state.accounts.reserve(trade_id, trade_legs(trade))]


def _check_confirm(state: TradeState, act: Act[Confirm], _at: int) -> Reason | None:
    trade = state.trade.trades.get(act.payload.trade)
    if trade is None:
        return _unknown(act.payload.trade)
    if act.author != trade.buyer:
        return Reason.of("trade_of_another")
    return None if trade.status == "accepted" else Reason.of("trade_not_accepted")


def _confirm(state: TradeState, act: Act[Confirm], at: int) -> list[Fact]:
    trade_id = act.payload.trade
    trade = state.trade.trades[trade_id]
    rules = state.coop.statutes_of(trade.statutes_version).trade
    assert rules is not None
    until_ms = at + rules.reversal_window_ms
    state.trade.trades[trade_id] = with_status(trade, "confirmed", until_ms)
    state.trade.enqueue(trade_id)
    state.trade.retire(at)
    confirmed = facts.TradeConfirmed(**_amounts(trade_id, trade), reversible_until_ms=until_ms)
    return [confirmed, *state.accounts.post(trade_id)]


def _check_refuse(state: TradeState, act: Act[Refuse], _at: int) -> Reason | None:
    trade = state.trade.trades.get(act.payload.trade)
    if trade is None:
        return _unknown(act.payload.trade)
    if act.author not in (trade.buyer, trade.seller):
        return Reason.of("trade_of_another")
    can_refuse = trade.status == "proposed" or (trade.status == "accepted" and act.author == trade.seller)
    return None if can_refuse else Reason.of("trade_binds")


def _refuse(state: TradeState, act: Act[Refuse], _at: int) -> list[Fact]:
    assert act.author is not None
    trade_id = act.payload.trade
    trade, freed = _drop(state, trade_id)
    return [facts.TradeRefused(**_amounts(trade_id, trade), by=act.author), *freed]


def _drop(state: TradeState, trade_id: bytes) -> tuple[Trade, list[Fact]]:
    """Remove a trade that was not confirmed, and free what it reserved."""
    trade = state.trade.trades[trade_id]
    del state.trade.trades[trade_id]
    return trade, state.accounts.void(trade_id) if trade.status == "accepted" else []


def _lapse_signers(state: TradeState, act: Act[Lapse], at: int) -> SignerRule:
    return THE_NODE if act.author is None else member_signs(state, act.author, TRADE, at)


def _check_lapse(state: TradeState, act: Act[Lapse], at: int) -> Reason | None:
    trade = state.trade.trades.get(act.payload.trade)
    if trade is None:
        return _unknown(act.payload.trade)
    if act.author not in (None, trade.buyer, trade.seller):
        return Reason.of("trade_of_another")
    # What was accepted is given up by the two alone: the goods may be on their way, and the buyer content.
    if trade.status == "confirmed" or (trade.status == "accepted" and act.author is None):
        return Reason.of("trade_binds")
    return None if at >= trade.closes_at_ms else Reason.of("trade_not_over", ends_ms=trade.closes_at_ms)


def _lapse(state: TradeState, act: Act[Lapse], _at: int) -> list[Fact]:
    trade_id = act.payload.trade
    trade, freed = _drop(state, trade_id)
    return [facts.TradeLapsed(**_amounts(trade_id, trade), was_accepted=trade.status == "accepted"), *freed]


def _reverse_signers(state: TradeState, act: Act[Reverse], at: int) -> SignerRule:
    if act.author == BOARD:
        return board_signs(state, act.author)
    return (*member_signs(state, act.author, TRADE, at), *member_signs(state, act.payload.buyer, TRADE, at))


def _check_reverse(state: TradeState, act: Act[Reverse], at: int) -> Reason | None:
    reverse = act.payload
    trade = state.trade.trades.get(reverse.trade)
    if trade is None:
        return _unknown(reverse.trade)
    if act.author not in (BOARD, trade.seller) or reverse.buyer != trade.buyer:
        return Reason.of("trade_of_another")
    if trade.status != "confirmed":
        return Reason.of("trade_not_confirmed")
    if at >= trade.closes_at_ms:
        return Reason.of("reversal_too_late", ended_ms=trade.closes_at_ms)
    reason = None
    if act.author != BOARD:
        reason = check_spending(state, trade.seller, act.signers, trade.unit, trade.barter_minor, at)
    return reason or state.accounts.check_transfer(reversal_legs(trade))


def _reverse(state: TradeState, act: Act[Reverse], at: int) -> list[Fact]:
    assert act.author is not None
    trade_id = act.payload.trade
    trade = state.trade.trades[trade_id]
    del state.trade.trades[trade_id]
    if act.author != BOARD:
        note_spending(state, trade.seller, act.signers, trade.unit, trade.barter_minor, at)
    undone = facts.TradeReversed(**_amounts(trade_id, trade), by=act.author)
    return [undone, *state.accounts.transfer(trade_id, reversal_legs(trade))]


def _propose_parties(_state: TradeState, act: Act[Propose]) -> tuple[bytes, ...]:
    assert act.author is not None
    return (act.author, act.payload.buyer)


def _trade_parties(state: TradeState, act: Act[Any]) -> tuple[bytes, ...]:
    trade = state.trade.trades[act.payload.trade]
    both = (trade.buyer, trade.seller)
    return (BOARD, *both) if act.author == BOARD else both


PROPOSE: Final[EntryType[TradeState, Propose]] = EntryType(
    tag="trade.propose",
    payload=Propose,
    visibility=Visibility.PARTIES,
    signers=_author_trades,
    check=_check_propose,
    effect=_propose,
    reasons=(
        "trade_not_offered",
        "statutes_version_mismatch",
        "member_not_active",
        "trade_with_oneself",
        "parts_not_total",
        "commission_mismatch",
        "scale_mismatch",
        "offer_end_out_of_range",
        "delivery_end_out_of_range",
    ),
    parties=_propose_parties,
)
ACCEPT: Final[EntryType[TradeState, Accept]] = EntryType(
    tag="trade.accept",
    payload=Accept,
    visibility=Visibility.PARTIES,
    signers=_author_trades,
    check=_check_accept,
    effect=_accept,
    reasons=(
        "trade_unknown",
        "trade_of_another",
        "trade_not_proposed",
        "offer_over",
        "statutes_version_mismatch",
        "total_mismatch",
        "trade_not_offered",
        "member_not_active",
        *SPENDING_REASONS,
        *ACCOUNT_REASONS,
    ),
    parties=_trade_parties,
)
CONFIRM: Final[EntryType[TradeState, Confirm]] = EntryType(
    tag="trade.confirm",
    payload=Confirm,
    visibility=Visibility.PARTIES,
    signers=_author_trades,
    check=_check_confirm,
    effect=_confirm,
    reasons=("trade_unknown", "trade_of_another", "trade_not_accepted"),
    parties=_trade_parties,
)
REFUSE: Final[EntryType[TradeState, Refuse]] = EntryType(
    tag="trade.refuse",
    payload=Refuse,
    visibility=Visibility.PARTIES,
    signers=_author_trades,
    check=_check_refuse,
    effect=_refuse,
    reasons=("trade_unknown", "trade_of_another", "trade_binds"),
    parties=_trade_parties,
)
LAPSE: Final[EntryType[TradeState, Lapse]] = EntryType(
    tag="trade.lapse",
    payload=Lapse,
    visibility=Visibility.PARTIES,
    signers=_lapse_signers,
    check=_check_lapse,
    effect=_lapse,
    reasons=("trade_unknown", "trade_of_another", "trade_binds", "trade_not_over"),
    parties=_trade_parties,
)
REVERSE: Final[EntryType[TradeState, Reverse]] = EntryType(
    tag="trade.reverse",
    payload=Reverse,
    visibility=Visibility.PARTIES,
    signers=_reverse_signers,
    check=_check_reverse,
    effect=_reverse,
    reasons=(
        "trade_unknown",
        "trade_of_another",
        "trade_not_confirmed",
        "reversal_too_late",
        *SPENDING_REASONS,
        *ACCOUNT_REASONS,
    ),
    parties=_trade_parties,
)
TRADE_TYPES: Final[tuple[AnyEntryType, ...]] = (
    *TRANSFER_TYPES,
    PROPOSE,
    ACCEPT,
    CONFIRM,
    REFUSE,
    LAPSE,
    REVERSE,
)
