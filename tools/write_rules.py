# SPDX-License-Identifier: AGPL-3.0-or-later
"""Write docs/specification/rules.md from the table of entry types, so that the page never differs from the rules.

``python tools/write_rules.py`` writes it; a test fails while the page is not what this writes. Fields, limits, reasons
and facts are read from the code; who signs is told here (`SIGNED_BY`), because a rule about people is a sentence.
"""

import inspect
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from ecot_protocol.ledger.entry_type import AnyEntryType
from ecot_protocol.ledger.facts import Fact
from ecot_protocol.ledger.reasons import COMMON_REASONS
from ecot_protocol.locale import translate
from ecot_protocol.machine import ENTRY_TYPES
from ecot_protocol.state import State
from ecot_protocol.wire.encoding import MAX_INTEGER

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "specification" / "rules.md"

BOARD: Final = "`board`: its threshold of persons"
NODE: Final = "nil: the node"
TREASURER: Final = "`treasurer`: its threshold of persons"
SIGNED_BY: Final[dict[str, str]] = {
    "coop.genesis": "`board`: every founder who holds that office, each with the key that the payload brings",
    "coop.appoint": BOARD,
    "coop.amend_statutes": BOARD,
    "coop.replace_node_key": f"{BOARD}, and the new key itself",
    "coop.name_cosigner": BOARD,
    "coop.raise_rules": BOARD,
    "coop.withdraw": "a person: the person, with a daily key",
    "coop.seal": NODE,
    "membership.apply": "the entry's own id: `person`, or the key of `new_person`",
    "membership.admit": BOARD,
    "membership.leave": "a member: a person mandated as `owner`",
    "membership.decline": BOARD,
    "membership.exclude": BOARD,
    "membership.charge_fee": f"{NODE}; or {TREASURER}",
    "membership.attest_payment": TREASURER,
    "membership.grant_mandate": "a member: a person mandated as `owner`, and the key of `new_person` if there is one",
    "membership.revoke_mandate": "a member: a person mandated as `owner`",
    "membership.add_key": "a person: any key of the person, daily or recovery, and the new key itself",
    "membership.revoke_key": "a person: any key of the person, daily or recovery",
    "membership.open_recovery": f"{BOARD}, and the new key itself",
    "membership.veto_recovery": "a person: any key of the person, daily or recovery",
    "membership.complete_recovery": "a person: the new key itself",
    "shares.subscribe": "a member: a person mandated as `owner`",
    "shares.cancel_subscription": f"a member: a person mandated as `owner`; or {TREASURER}",
    "shares.attest_payment": TREASURER,
    "shares.redeem": TREASURER,
    "trade.pay": "a member: a person mandated for `trade`",
    "trade.set_limits": BOARD,
    "trade.propose": "a member, the seller: a person mandated for `trade`",
    "trade.accept": "a member, the buyer: a person mandated for `trade`",
    "trade.confirm": "a member, the buyer: a person mandated for `trade`",
    "trade.refuse": "a member, buyer or seller: a person mandated for `trade`",
    "trade.lapse": f"{NODE}; or a member, buyer or seller: a person mandated for `trade`",
    "trade.reverse": f"the seller: a person mandated for `trade` by the seller and one by the buyer; or {BOARD}",
    "governance.open_poll": f"a member: a person mandated for `vote`; or {BOARD}",
    "governance.vote": "a member: a person mandated for `vote`",
    "governance.close_poll": f"{NODE}; a member: a person mandated for `vote`; or {BOARD}",
    "governance.adopt_statutes": f"{NODE}; a member: a person mandated for `vote`; or {BOARD}",
    "catalogue.register_work": "a holder: a person mandated for `catalogue` by each holder",
    "catalogue.register_works": "a member: a person mandated for `catalogue`",
    "catalogue.change_splits": "a holder: a person mandated for `catalogue` by each holder, of before and to be",
    "catalogue.withdraw_work": f"a holder: a person mandated for `catalogue` by each holder; or {BOARD}",
    "royalty.subscribe": "a member, an institution: a person mandated for `subscribe`",
    "royalty.report_use": f"the institution: a person mandated for `use`; {TREASURER}; or {NODE}",
    "royalty.open_period": f"{BOARD}; or {TREASURER}",
    "royalty.close_period": TREASURER,
    "royalty.pay_out": f"{NODE}; {BOARD}; {TREASURER}; or a member: a person mandated for `use`",
    "federation.peer": BOARD,
    "federation.end_peering": BOARD,
    "federation.suspend_peering": BOARD,
    "federation.resume_peering": BOARD,
    "federation.follow_keys": NODE,
    "federation.give_up": BOARD,
    "federation.send": "a member: a person mandated for `trade`",
    "federation.forward": NODE,
    "federation.promise": NODE,
    "federation.owe": "a member: a person mandated for `trade`",
    "federation.claim": "a member: a person mandated for `trade`",
    "federation.withdraw_obligation": "the member who offered it: a person mandated for `trade`",
    "federation.clear_commit": NODE,
    "federation.clear_accept": NODE,
    "federation.decide": NODE,
    "federation.resolve": f"{NODE}; or {BOARD}",
}
"""Tag -> author and who signs for it. `owner` is a mandate for everything, so it holds wherever a scope is named."""

VALUE_METHODS: Final = {
    "open": ("LimitsChanged",),
    "post": ("Posting", "ReservationClosed"),
    "reserve": ("Reserved",),
    "split": ("ReservationClosed", "Reserved"),
    "transfer": ("Posting",),
    "void": ("ReservationClosed",),
}
"""Method of the accounts -> facts that it returns."""

INTRODUCTION: Final = """\
# Rules: every entry type

*Written by `tools/write_rules.py` from the code; edit that, not this page.*

Each entry type has a payload (a canonical map of the fields below, see [wire](wire.md)), an author with the persons who
sign for it, the reasons why it can be refused, in order, and the facts that it makes. Before its own reasons, any entry
can be refused for its form, and for the [common reasons](ledger.md#2-common-reasons). Authors: a member or person by
its id, an organ by its fixed id, nil for the node. "A person mandated for *scope*" is one person whose mandate by that
member is in force at the record and names the scope, or `owner`.

Amounts (`_minor`) are in minor units of their unit; times (`_ms`) in milliseconds since 1970, durations in
milliseconds; shares (`_bp`) in parts of 10,000. Fields named after a class of attachment hold a commitment:
HMAC-SHA-256(salt, content), 32 bytes; nil where there is no attachment.
"""


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """Return the whole page."""
    parts = [INTRODUCTION]
    domains: dict[str, list[AnyEntryType]] = {}
    for entry_type in ENTRY_TYPES:
        domains.setdefault(entry_type.tag.partition(".")[0], []).append(entry_type)
    written: set[type] = set()
    for domain, entry_types in domains.items():
        parts.append(f"## {domain}\n")
        parts += [_section(entry_type) for entry_type in entry_types]
        parts += _records(entry_types, written)
    parts += _tables(written)
    parts.append(_reasons())
    return "\n".join(parts).rstrip("\n") + "\n"


def _section(entry_type: AnyEntryType) -> str:
    title, description = _sentences(entry_type.payload)
    facts = ", ".join(f"`{name}`" for name in sorted(find_facts(entry_type.effect)))
    lines = [
        f"### `{entry_type.tag}`\n",
        f"{title}\n",
        *([f"{description}\n"] if description else []),
        f"- Author and signers: {SIGNED_BY[entry_type.tag]}",
        f"- Rules: from {entry_type.rules}. Record served to: {entry_type.visibility.value}",
        f"- Reasons, in order: {', '.join(f'`{code}`' for code in entry_type.reasons) or 'none of its own'}",
        f"- Facts: {facts}\n",
        *_fields(entry_type.payload, dict(entry_type.attachments)),
    ]
    return "\n".join(lines)


def _sentences(wire_type: type) -> tuple[str, str]:
    """Return (first paragraph, the rest but for the attributes, which stand in the table) of a docstring."""
    paragraphs = (inspect.getdoc(wire_type) or "").replace("``", "`").split("\n\n")
    others = [" ".join(one.split()) for one in paragraphs[1:] if not one.startswith("Attributes:")]
    return " ".join(paragraphs[0].split()), "\n\n".join(others)


def _attributes(wire_type: type) -> dict[str, str]:
    """Return field -> what the docstring says of it."""
    _, _, text = (inspect.getdoc(wire_type) or "").partition("Attributes:\n")
    found: dict[str, str] = {}
    names: list[str] = []
    for line in text.split("\n\n")[0].splitlines():
        if line.startswith("    ") and not line.startswith("     "):
            head, _, told = line.strip().partition(": ")
            names = head.split(", ")
            found |= dict.fromkeys(names, told)
        else:
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return {field: told.replace("``", "`") for field, told in found.items()}


def _fields(wire_type: type, attachments: dict[str, str]) -> Iterator[str]:
    told = _attributes(wire_type)
    rows = [(field.name, describe(field.type, attachments.get(field.name))) for field in _fields_of(wire_type)]
    if not rows:
        yield "The payload is an empty map.\n"
        return
    yield "| field | value |"
    yield "|---|---|"
    for name, value in rows:
        yield f"| `{name}` | {value}{': ' + told[name] if name in told else ''} |"
    yield ""


def _fields_of(wire_type: type) -> tuple[Any, ...]:
    if issubclass(wire_type, msgspec.Struct):
        return msgspec.structs.fields(wire_type)
    hints = typing.get_type_hints(wire_type, include_extras=True)
    return tuple(types.SimpleNamespace(name=name, type=hint) for name, hint in hints.items())


def describe(hint: Any, attachment: str | None = None) -> str:
    """Return a type in words: its kind and its limits."""
    if attachment is not None:
        return f"commitment to a `{attachment}`" + (" or nil" if type(None) in typing.get_args(hint) else "")
    return _describe(msgspec.inspect.type_info(hint))


def _describe(info: msgspec.inspect.Type) -> str:
    match info:
        case msgspec.inspect.Metadata(type=inner):
            return _describe(inner)
        case msgspec.inspect.NoneType():
            return "nil"
        case msgspec.inspect.BoolType():
            return "boolean"
        case msgspec.inspect.IntType(ge=low, le=high):
            return f"integer {_number(-MAX_INTEGER if low is None else low)} … {_number(high or MAX_INTEGER)}"
        case msgspec.inspect.BytesType(min_length=low, max_length=high):
            return f"{high} bytes" if low == high and high is not None else f"bytes, {low or 0} … {high or 'any'}"
        case msgspec.inspect.StrType(pattern=str(pattern)):
            return "text `" + pattern.removesuffix("(?!\\n)").replace("|", "\\|") + "`"
        case msgspec.inspect.StrType(min_length=low, max_length=high):
            return "text" + (f", {low or 0} … {high} characters" if high else "")
        case msgspec.inspect.LiteralType(values=choices):
            return ", ".join(f"`{choice}`" for choice in choices)
        case msgspec.inspect.UnionType(types=choices):
            return " or ".join(_describe(one) for one in choices)
        case msgspec.inspect.VarTupleType(item_type=item, min_length=low, max_length=high):
            return f"array of {low or 0} … {high or 'any number'}: {_describe(item)}"
        case msgspec.inspect.TupleType(item_types=items):
            return "array: " + ", ".join(_describe(one) for one in items)
        case msgspec.inspect.StructType(cls=cls) | msgspec.inspect.NamedTupleType(cls=cls):
            return f"[`{cls.__name__}`](#{_anchor(cls)})"
    raise TypeError(f"no words for {info}")


def _number(value: int) -> str:
    return {MAX_INTEGER: "2^53−1", -MAX_INTEGER: "−(2^53−1)"}.get(value, f"{value:,}")


def _anchor(cls: type) -> str:
    return f"{cls.__module__.split('.')[-2]}-{cls.__name__}".lower()


def _records(entry_types: list[AnyEntryType], written: set[type]) -> Iterator[str]:
    """Yield the records that payloads of a domain hold, each once on the page, where it is first needed."""
    for entry_type in entry_types:
        yield from _described(entry_type.payload, written | {entry_type.payload}, written)


def _described(wire_type: Any, known: set[type], written: set[type]) -> Iterator[str]:
    for cls in _nested(msgspec.inspect.type_info(wire_type)):
        if cls in known | written:
            continue
        written.add(cls)
        title, description = _sentences(cls)
        is_map = issubclass(cls, msgspec.Struct) and not cls.__struct_config__.array_like
        form = "A map." if is_map else "An array, in the order of its fields."
        body = "\n".join(_fields(cls, {}))
        rest = f"{description}\n\n" if description else ""
        heading = f"#### {_anchor(cls).split('-')[0]} {cls.__name__}"
        yield f"{heading}\n\n{title} {form}\n\n{rest}{body}"


def _tables(written: set[type]) -> Iterator[str]:
    """Yield the tables of the state with the types of their rows, which the state digest covers."""
    yield "## Tables of the state\n"
    yield "In the order of a snapshot; see [ledger](ledger.md#6-state-digest).\n"
    yield "| table | key | value |\n|---|---|---|"
    tables = [
        (table.name, *(codec._decoder.type for codec in (table._key_codec, table._value_codec)))  # noqa: SLF001
        for table in State()._all_tables()  # noqa: SLF001
    ]
    for name, key_type, value_type in tables:
        yield f"| `{name}` | {describe(key_type)} | {describe(value_type)} |"
    yield ""
    for _, *wire_types in tables:
        for wire_type in wire_types:
            yield from _described(wire_type, set(), written)


def _nested(info: msgspec.inspect.Type) -> Iterator[type]:
    match info:
        case (
            msgspec.inspect.StructType(cls=cls, fields=fields) | msgspec.inspect.NamedTupleType(cls=cls, fields=fields)
        ):
            yield cls
            for field in fields:
                yield from _nested(field.type)
        case msgspec.inspect.Metadata(type=inner) | msgspec.inspect.VarTupleType(item_type=inner):
            yield from _nested(inner)
        case msgspec.inspect.UnionType(types=inner) | msgspec.inspect.TupleType(item_types=inner):
            for one in inner:
                yield from _nested(one)


def find_facts(effect: Any) -> set[str]:
    """Return the names of the facts that an effect can make: those its code, and what it calls, names."""
    found: set[str] = set()
    seen: set[Any] = set()
    waiting = [effect]
    while waiting:
        function = waiting.pop()
        if function in seen or not inspect.isfunction(function):
            continue
        seen.add(function)
        for code in _codes(function.__code__):
            for name in code.co_names:
                value = function.__globals__.get(name)
                waiting.append(value if getattr(value, "__module__", "").startswith("ecot_protocol") else None)
                found |= _fact_names(function, code, name, value)
    return found


def _fact_names(function: Any, code: types.CodeType, name: str, value: Any) -> set[str]:
    if isinstance(value, type) and issubclass(value, Fact):
        return {name}
    if name == "accounts":
        return {fact for method, facts in VALUE_METHODS.items() if method in code.co_names for fact in facts}
    modules = [one for one in function.__globals__.values() if inspect.ismodule(one) and one.__name__.endswith("facts")]
    classes = (getattr(module, name, None) for module in modules)
    return {name for one in classes if isinstance(one, type) and issubclass(one, Fact) and one is not Fact}


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _reasons() -> str:
    codes = sorted({*COMMON_REASONS, *(code for entry_type in ENTRY_TYPES for code in entry_type.reasons)})
    rows = [f"| `{code}` | {translate(f'reason.{code}', 'en')} |" for code in codes]
    return "\n".join(["## Reasons\n", "| code | text, with its parameters |", "|---|---|", *rows])


if __name__ == "__main__":
    main()
