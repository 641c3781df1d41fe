# SPDX-License-Identifier: AGPL-3.0-or-later
"""Rules have numbers, statutes say from when they bind, and the page of the rules is what the code says."""

import importlib.util
from pathlib import Path
from types import ModuleType

import msgspec
import pytest
from ledger_kit import LedgerKit, statutes
from story_kit import tell

from ecot_protocol.domains.coop import acts
from ecot_protocol.domains.coop.acts import RaiseRules, Withdraw
from ecot_protocol.domains.coop.statutes import FORCE, Statutes
from ecot_protocol.errors import LocalProtocolError, RemoteProtocolError
from ecot_protocol.ledger.entry_type import EntryType, Visibility
from ecot_protocol.ledger.facts import Fact
from ecot_protocol.ledger.reasons import COMMON_REASONS, Reason
from ecot_protocol.machine import ENTRY_TYPES, Machine
from ecot_protocol.state import State
from ecot_protocol.wire.encoding import Count, Hash, Id, Wire
from ecot_protocol.wire.entry import BODY, decode_record
from ecot_protocol.wire.ids import uuid7


class WithdrawUnderTwo(Wire):
    """A payload that only rules 2 know."""

    body_hash: Hash
    entry_id: Id
    urgency: Count


UNDER_TWO = EntryType(
    tag="coop.withdraw",
    rules=2,
    payload=WithdrawUnderTwo,
    visibility=Visibility.PARTIES,
    signers=acts.WITHDRAW.signers,  # type: ignore[arg-type]
    check=lambda _state, act, _at: Reason.of("too_urgent") if act.payload.urgency > 9 else None,
    effect=lambda _state, _act, _at: [],
    reasons=("too_urgent",),
)
NEW_UNDER_TWO = EntryType(
    tag="coop.greet",
    rules=2,
    payload=WithdrawUnderTwo,
    visibility=Visibility.PARTIES,
    signers=acts.WITHDRAW.signers,  # type: ignore[arg-type]
    check=lambda _state, _act, _at: None,
    effect=lambda _state, _act, _at: [],
    reasons=(),
)
MACHINE_OF_TWO = Machine((*ENTRY_TYPES, UNDER_TWO, NEW_UNDER_TWO))


def old(kit: LedgerKit) -> Withdraw:
    return Withdraw(body_hash=bytes(32), entry_id=uuid7(kit.now, bytes(10)))


def new(kit: LedgerKit, urgency: int = 1) -> WithdrawUnderTwo:
    return WithdrawUnderTwo(body_hash=bytes(32), entry_id=uuid7(kit.now, bytes(10)), urgency=urgency)


def code_of_admission(kit: LedgerKit, tag: str, payload: Wire) -> str:
    with pytest.raises(RemoteProtocolError) as caught:
        kit.send(tag, payload, author=kit.persons["claire"], signers=(kit.founders["claire"],))
    return caught.value.code


def test_a_record_is_judged_by_the_rules_in_force_at_its_index() -> None:
    kit = LedgerKit(machine=MACHINE_OF_TWO)
    by = {"author": kit.persons["claire"], "signers": (kit.founders["claire"],)}
    assert code_of_admission(kit, "coop.withdraw", new(kit)) == "malformed"
    assert code_of_admission(kit, "coop.greet", new(kit)) == "type_unknown"
    kit.must("coop.withdraw", old(kit), **by)
    kit.must("coop.raise_rules", RaiseRules(rules=2), author=acts.BOARD, signers=kit.board)
    assert code_of_admission(kit, "coop.withdraw", old(kit)) == "malformed"
    assert kit.refused("coop.withdraw", new(kit, urgency=10), **by) == "too_urgent"
    kit.must("coop.withdraw", new(kit), **by)
    kit.must("coop.greet", new(kit), **by)
    kit.join("ada")  # Types of rules 1 that rules 2 do not replace stay in force.
    assert kit.replayed().digest() == kit.state.digest()


def test_a_release_that_lacks_the_rules_stops_at_their_first_record() -> None:
    kit = LedgerKit(machine=MACHINE_OF_TWO)
    kit.must("coop.raise_rules", RaiseRules(rules=2), author=acts.BOARD, signers=kit.board)
    kit.must("coop.greet", new(kit), author=kit.persons["claire"], signers=(kit.founders["claire"],))
    state, release = State(), Machine()
    for raw in kit.records[:-1]:
        release.replay(state, decode_record(raw))
    with pytest.raises(RemoteProtocolError) as caught:
        release.replay(state, decode_record(kit.records[-1]))
    assert caught.value.code == "type_unknown"


def test_an_entry_type_is_listed_once_for_each_rules_number() -> None:
    with pytest.raises(LocalProtocolError):
        Machine((*ENTRY_TYPES, UNDER_TWO, UNDER_TWO))


def test_tags_and_reasons_are_lower_case_facts() -> None:
    for entry_type in ENTRY_TYPES:
        assert len(set(entry_type.reasons)) == len(entry_type.reasons), entry_type.tag
        assert all(code.replace("_", "").isalpha() and code.islower() for code in entry_type.reasons)
    assert len(set(COMMON_REASONS)) == len(COMMON_REASONS)


# Statutes ----------------------------------------------------------------------------------------------------------


def fields_of_statutes() -> set[str]:
    """Return ``section.field`` of every field, and the name of every section that is a plain list."""
    found = set()
    for section in msgspec.structs.fields(Statutes):
        value = getattr(statutes(), section.name)
        if isinstance(value, Wire):
            found |= {f"{section.name}.{field.name}" for field in msgspec.structs.fields(type(value))}
        else:
            found.add(section.name)
    return found


def test_every_field_of_the_statutes_says_when_an_amendment_binds() -> None:
    assert set(FORCE) == fields_of_statutes()
    assert set(FORCE.values()) == {"at_start", "at_once"}
    assert list(FORCE) == sorted(FORCE)


# The page ----------------------------------------------------------------------------------------------------------


def writer() -> ModuleType:
    path = Path(__file__).parents[2] / "tools" / "write_rules.py"
    spec = importlib.util.spec_from_file_location("write_rules", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_the_rules_is_up_to_date() -> None:
    module = writer()
    assert module.PAGE.read_text(encoding="utf-8") == module.page(), "run: python tools/write_rules.py"


def test_the_page_says_who_signs_every_entry_type() -> None:
    assert set(writer().SIGNED_BY) == {one.tag for one in ENTRY_TYPES}


def test_the_page_names_every_fact_that_an_entry_makes() -> None:
    module = writer()
    observed: dict[str, set[str]] = {}

    def listen(_kit: object, entry: object, facts: list[Fact]) -> None:
        tag = BODY.decode(entry.body).type  # type: ignore[attr-defined]
        observed.setdefault(tag, set()).update(type(fact).__name__ for fact in facts)

    tell(listen)
    effects = {one.tag: one.effect for one in ENTRY_TYPES}
    for tag, names in observed.items():
        assert names <= module.find_facts(effects[tag]), tag
