# SPDX-License-Identifier: AGPL-3.0-or-later
"""A picture of the federation, as SVG: our cooperative in the middle, its partners around it, beyond them who is known
of theirs.

- A line to a partner is as thick as what is owed is large; its arrow points to whom it is owed.
- A partner's card says the balance and, as two bars, the room that is left each way, towards us and towards it, as a
  part of the whole way from one limit to the other.
- Whom partners accept as deciders or witnesses beside us is shown beyond, joined by dotted lines to those who name it:
  of their balances nothing is known here.

The text can be read without the colours, and by a screen reader (`title` and `desc`).
"""

import datetime as dt
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from babel.dates import format_datetime

from ecot_cli.amounts import format_amount, scale_of
from ecot_client.models import LedgerInfo, PeerInfo
from ecot_protocol.domains.federation.statements import decode_peering
from ecot_protocol.locale import translate

CARD_WIDTH: Final = 236
CARD_HEIGHT: Final = 128
_PILL_WIDTH: Final = 176
_PILL_HEIGHT: Final = 30
_GAP: Final = 40
_TOP: Final = 104
_BOTTOM: Final = 96
_MIN_WIDTH: Final = 1_000
_MAX_NAME: Final = 25
_MAX_TOTALS: Final = 3
"""Lines with totals on our own card."""
_UNSEEN: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
_INK: Final = "#1f2933"
_SOFT: Final = "#5f6c7b"
_LINE: Final = "#c5ced8"
_WE_OWE: Final = "#b4540a"
_THEY_OWE: Final = "#0b6e99"
_HEALTH: Final = {
    "differs": "#c62828",
    "ended": "#8a94a0",
    "good": "#2e7d32",
    "suspended": "#b7791f",
    "unknown": "#8a94a0",
    "unreachable": "#8a94a0",
    "unwitnessed": "#b7791f",
}


@dataclass(frozen=True)
class _Spot:
    """The middle of a card."""

    x: float
    y: float


@dataclass(frozen=True)
class _Known:
    """A ledger that partners name, and who names it."""

    name: str
    partners: frozenset[str]


def draw_federation(info: LedgerInfo, peers: Sequence[PeerInfo], locale: str) -> str:
    """Return the picture.

    Args:
        info: of our node.
        peers: of our node.
        locale: language of its texts.
    """
    return _Picture(info, peers, locale).draw()


class _Picture:
    def __init__(self, info: LedgerInfo, peers: Sequence[PeerInfo], locale: str) -> None:
        self._info, self._locale = info, locale
        self._peers = sorted(peers, key=lambda one: (one.domain, one.ledger))
        self._known = _find_known(info, self._peers)
        self._largest = max((abs(one.balance_minor) for one in self._peers), default=0)
        self._radius_x, self._radius_y = _radii(len(self._peers))
        self._middle = _Spot(0, 0)
        self._spots = {one.ledger: self._spot(place, len(self._peers)) for place, one in enumerate(self._peers)}
        self._known_spots = self._place_known()
        self._fit()

    def _fit(self) -> None:
        """Move everything into a page that is as large as what stands on it, and wide enough for the legend."""
        cards = [self._middle, *self._spots.values()]
        pills = [spot for _, spot in self._known_spots]
        half = [(spot, CARD_WIDTH / 2, CARD_HEIGHT / 2) for spot in cards]
        half += [(spot, _PILL_WIDTH / 2, _PILL_HEIGHT / 2) for spot in pills]
        left, right = min(one.x - dx for one, dx, _ in half), max(one.x + dx for one, dx, _ in half)
        top, bottom = min(one.y - dy for one, _, dy in half), max(one.y + dy for one, _, dy in half)
        self.width = max(right - left + 2 * _GAP, _MIN_WIDTH)
        self.height = bottom - top + _TOP + _BOTTOM
        dx, dy = (self.width - right - left) / 2, _TOP - top
        self._middle = _Spot(dx, dy)
        self._spots = {name: _Spot(one.x + dx, one.y + dy) for name, one in self._spots.items()}
        self._known_spots = [(known, _Spot(one.x + dx, one.y + dy)) for known, one in self._known_spots]

    def draw(self) -> str:
        """Return the whole document."""
        spots, known_spots = self._spots, self._known_spots
        parts = [
            *self._head(),
            *(self._dotted(spot, spots[name]) for one, spot in known_spots for name in sorted(one.partners)),
            *(self._edge(one, spots[one.ledger]) for one in self._peers),
            *(self._pill(one, spot) for one, spot in known_spots),
            self._own_card(),
            *(self._card(one, spots[one.ledger]) for one in self._peers),
            *self._legend(),
            "</svg>",
        ]
        return "\n".join(parts) + "\n"

    def _text(self, key: str, **params: object) -> str:
        return translate(f"cli.picture.{key}", self._locale, **params)

    def _amount(self, peer: PeerInfo, minor: int) -> str:
        return format_amount(minor, scale_of(self._info, peer.unit), peer.unit, self._locale)

    # --- where things are -------------------------------------------------------------------------------------------

    def _spot(self, place: int, count: int) -> _Spot:
        # One partner lies on the right, two left and right; from three on the first is above.
        angle = 2 * math.pi * place / count - {1: 0.0, 2: math.pi}.get(count, math.pi / 2)
        x, y = self._radius_x * math.cos(angle), self._radius_y * math.sin(angle)
        return _Spot(self._middle.x + x, self._middle.y + y)

    def _place_known(self) -> list[tuple[_Known, _Spot]]:
        """Put whoever is known of theirs beyond those who name it, one after the other where they would overlap."""
        found: list[tuple[_Known, _Spot]] = []
        spots = self._spots
        radius_x = self._radius_x + CARD_WIDTH / 2 + _PILL_WIDTH / 2 + 40
        radius_y = self._radius_y + CARD_HEIGHT / 2 + _PILL_HEIGHT / 2 + 44
        taken: list[_Spot] = []
        for one in self._known:
            xs = [spots[name].x - self._middle.x for name in one.partners]
            ys = [spots[name].y - self._middle.y for name in one.partners]
            # Named from opposite sides, it stands between two partners rather than on top of our own card.
            is_central = math.hypot(sum(xs), sum(ys)) < 1
            angle = math.pi / 4 if is_central else math.atan2(sum(ys) / radius_y, sum(xs) / radius_x)
            spot = _on_ellipse(self._middle, radius_x, radius_y, angle)
            step = 0
            while any(_is_near(spot, other) for other in (*taken, *spots.values())) and step < 60:
                step += 1
                turned = angle + (0.12 if step % 2 else -0.12) * ((step + 1) // 2)
                spot = _on_ellipse(self._middle, radius_x, radius_y, turned)
            taken.append(spot)
            found.append((one, spot))
        return found

    # --- what is drawn ----------------------------------------------------------------------------------------------

    def _head(self) -> Iterator[str]:
        name = self._info.name or self._info.domain or ""
        at = dt.datetime.fromtimestamp(self._info.time_ms / 1000, tz=dt.UTC).astimezone()
        day = format_datetime(at, "long", tzinfo=at.tzinfo, locale=self._locale)
        title, size = self._text("title", name=name), f"{self.width:.0f} {self.height:.0f}"
        yield (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" width="{self.width:.0f}" '
            f'height="{self.height:.0f}" role="img" aria-labelledby="t d" '
            "font-family=\"Inter, 'DejaVu Sans', Verdana, sans-serif\">"
        )
        yield f'<title id="t">{escape(_shown(title))}</title>'
        yield f'<desc id="d">{escape(_shown(self._described()))}</desc>'
        yield (
            '<defs><marker id="arrow" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="14" markerHeight="14" '
            'markerUnits="userSpaceOnUse" orient="auto-start-reverse"><path d="M0 0L10 5L0 10z" fill="context-stroke"/>'
            "</marker></defs>"
        )
        yield f'<rect width="{self.width:.0f}" height="{self.height:.0f}" fill="#ffffff"/>'
        yield _label(_GAP, 42, title, size=24, weight=600)
        yield _label(_GAP, 66, self._text("as_of", day=day, count=len(self._peers)), size=13, fill=_SOFT)

    def _described(self) -> str:
        said = [
            self._text(
                "partner_said", name=one.domain, balance=self._balance(one), room_in=self._room(one, one.room_in_minor),
                room_out=self._room(one, one.room_out_minor),
            )
            for one in self._peers
        ]  # fmt: skip
        return " ".join(said) or self._text("nobody")

    def _balance(self, peer: PeerInfo) -> str:
        if not peer.balance_minor:
            return self._text("nothing_owed")
        key = "we_owe" if peer.balance_minor > 0 else "they_owe"
        return self._text(key, amount=self._amount(peer, abs(peer.balance_minor)))

    def _room(self, peer: PeerInfo, minor: int | None) -> str:
        return self._text("no_limit") if minor is None else self._amount(peer, minor)

    def _own_card(self) -> str:
        x, y = self._middle.x - CARD_WIDTH / 2, self._middle.y - CARD_HEIGHT / 2
        name = _short(self._info.name or self._info.domain or "", 22)
        lines = [
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{CARD_WIDTH}" height="{CARD_HEIGHT}" rx="14" fill="{_INK}"/>',
            _label(self._middle.x, self._middle.y - 26, name, size=18, weight=700, fill="#fff", anchor="middle"),
            _label(
                self._middle.x, self._middle.y - 6, _short(self._info.domain or "", 30),
                size=12, fill="#cbd2d9", anchor="middle",
            ),
        ]  # fmt: skip
        for place, text in enumerate(self._totals()[:_MAX_TOTALS]):
            y_text = self._middle.y + 18 + 17 * place
            lines.append(_label(self._middle.x, y_text, text, size=12, fill="#fff", anchor="middle"))
        return "\n".join(lines)

    def _totals(self) -> list[str]:
        """Say, unit by unit, what partners owe us and what we owe them, all together."""
        found: list[str] = []
        for unit in sorted({one.unit for one in self._peers}):
            mine = [one for one in self._peers if one.unit == unit]
            scale = scale_of(self._info, unit)
            sums = (
                sum(max(-one.balance_minor, 0) for one in mine),
                sum(max(one.balance_minor, 0) for one in mine),
            )
            owed, owing = (format_amount(one, scale, unit, self._locale) for one in sums)
            found += [self._text("total_owed", amount=owed), self._text("total_owing", amount=owing)]
        return found

    def _card(self, peer: PeerInfo, spot: _Spot) -> str:
        x, y = spot.x - CARD_WIDTH / 2, spot.y - CARD_HEIGHT / 2
        colour = _HEALTH.get(peer.health, _SOFT)
        dashed = ' stroke-dasharray="5 4"' if peer.status != "active" else ""
        health = translate(f"cli.health.{peer.health}", self._locale)
        lines = [
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{CARD_WIDTH}" height="{CARD_HEIGHT}" rx="12" fill="#fff" '
            f'stroke="{colour}" stroke-width="2"{dashed}/>',
            _label(x + 14, y + 24, _short(peer.domain, _MAX_NAME), size=14, weight=700),
            f'<circle cx="{x + 19:.1f}" cy="{y + 38.5:.1f}" r="4.5" fill="{colour}"/>',
            _label(x + 29, y + 43, health, size=12, fill=colour),
        ]
        if peer.incident_count:
            text = self._text("incidents", count=peer.incident_count)
            lines.append(_label(x + CARD_WIDTH - 14, y + 43, text, size=12, fill=_HEALTH["differs"], anchor="end"))
        owed = _WE_OWE if peer.balance_minor > 0 else _THEY_OWE if peer.balance_minor else _SOFT
        lines.append(_label(x + 14, y + 65, self._balance(peer), size=13, weight=600, fill=owed))
        lines += self._bar(peer, _Spot(x + 14, y + 83), "room_in", peer.room_in_minor, _THEY_OWE)
        lines += self._bar(peer, _Spot(x + 14, y + 107), "room_out", peer.room_out_minor, _WE_OWE)
        return "\n".join(lines)

    def _bar(self, peer: PeerInfo, at: _Spot, key: str, room_minor: int | None, colour: str) -> list[str]:
        """Draw how much of the whole way from one limit to the other is left in a direction."""
        width = CARD_WIDTH - 28
        whole = (peer.room_in_minor or 0) + (peer.room_out_minor or 0) + peer.pending_in_minor + peer.pending_out_minor
        left = 1.0 if room_minor is None else room_minor / whole if whole else 0.0
        return [
            _label(at.x, at.y, self._text(key), size=11, fill=_SOFT),
            _label(at.x + width, at.y, self._room(peer, room_minor), size=11, anchor="end"),
            f'<rect x="{at.x:.1f}" y="{at.y + 5:.1f}" width="{width}" height="6" rx="3" fill="#e4e9ee"/>',
            f'<rect x="{at.x:.1f}" y="{at.y + 5:.1f}" width="{width * left:.1f}" height="6" rx="3" fill="{colour}"/>',
        ]

    def _edge(self, peer: PeerInfo, spot: _Spot) -> str:
        share = abs(peer.balance_minor) / self._largest if self._largest else 0.0
        is_owing = peer.balance_minor > 0
        colour = _LINE if not peer.balance_minor else _WE_OWE if is_owing else _THEY_OWE
        start, end = (self._middle, spot) if is_owing else (spot, self._middle)
        one, two = _leave_card(start, end, 4), _leave_card(end, start, 8)
        arrow = ' marker-end="url(#arrow)"' if peer.balance_minor else ""
        dashed = ' stroke-dasharray="2 7"' if peer.status != "active" else ""
        return (
            f'<line x1="{one.x:.1f}" y1="{one.y:.1f}" x2="{two.x:.1f}" y2="{two.y:.1f}" stroke="{colour}" '
            f'stroke-width="{1.5 + 5 * share:.1f}" stroke-linecap="round"{dashed}{arrow}/>'
        )

    def _dotted(self, one: _Spot, two: _Spot) -> str:
        return (
            f'<line x1="{one.x:.1f}" y1="{one.y:.1f}" x2="{two.x:.1f}" y2="{two.y:.1f}" stroke="{_LINE}" '
            'stroke-width="1.5" stroke-dasharray="2 5"/>'
        )

    def _pill(self, known: _Known, spot: _Spot) -> str:
        x, y = spot.x - _PILL_WIDTH / 2, spot.y - _PILL_HEIGHT / 2
        return (
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{_PILL_WIDTH}" height="{_PILL_HEIGHT}" rx="15" fill="#f4f6f8" '
            f'stroke="{_LINE}"/>\n'
            + _label(spot.x, spot.y + 4, _short(known.name, 22), size=12, fill=_SOFT, anchor="middle")
        )

    def _legend(self) -> Iterator[str]:
        y = self.height - 40
        x = float(_GAP)
        for colour, key in ((_THEY_OWE, "legend_they_owe"), (_WE_OWE, "legend_we_owe")):
            text = self._text(key)
            yield (
                f'<line x1="{x:.0f}" y1="{y - 4:.0f}" x2="{x + 34:.0f}" y2="{y - 4:.0f}" stroke="{colour}" '
                'stroke-width="4" stroke-linecap="round" marker-end="url(#arrow)"/>'
            )
            yield _label(x + 46, y, text, size=12, fill=_SOFT)
            x += 70 + 6.6 * len(text)
        if self._known:
            yield (
                f'<line x1="{x:.0f}" y1="{y - 4:.0f}" x2="{x + 34:.0f}" y2="{y - 4:.0f}" stroke="{_LINE}" '
                'stroke-width="2" stroke-dasharray="2 5"/>'
            )
            yield _label(x + 46, y, self._text("legend_known"), size=12, fill=_SOFT)


def _find_known(info: LedgerInfo, peers: Sequence[PeerInfo]) -> list[_Known]:
    """Return who decides or witnesses for partners beside ourselves and them."""
    ours = {info.ledger, *(one.ledger for one in peers)}
    names: dict[str, str] = {}
    named_by: dict[str, set[str]] = {}
    for peer in peers:
        for policy in decode_peering(bytes.fromhex(peer.statement)).deciders:
            mentioned = [(policy.ledger, policy.log.origin), *((one.ledger, one.name) for one in policy.witnesses)]
            for ledger, origin in mentioned:
                if ledger.hex() not in ours:
                    names[ledger.hex()] = origin.partition("/")[0]
                    named_by.setdefault(ledger.hex(), set()).add(peer.ledger)
    return [_Known(names[one], frozenset(named_by[one])) for one in sorted(names, key=names.__getitem__)]


def _radii(count: int) -> tuple[float, float]:
    """Return the half axes of an ellipse on which so many cards stand apart."""
    if count <= 2:
        return 330.0, 120.0 if count else 0.0
    needed = count * (CARD_WIDTH + _GAP)
    # The circumference by Ramanujan is about 2 pi sqrt((a^2 + b^2) / 2); a : b is 8 : 5.
    factor = needed / (2 * math.pi * math.sqrt((1 + 0.625**2) / 2))
    radius_x = max(380.0, factor)
    return radius_x, max(235.0, 0.625 * radius_x)


def _on_ellipse(middle: _Spot, radius_x: float, radius_y: float, angle: float) -> _Spot:
    return _Spot(middle.x + radius_x * math.cos(angle), middle.y + radius_y * math.sin(angle))


def _is_near(one: _Spot, other: _Spot) -> bool:
    return abs(one.x - other.x) < (CARD_WIDTH + _PILL_WIDTH) / 2 + 8 and abs(one.y - other.y) < CARD_HEIGHT / 2 + 22


def _leave_card(start: _Spot, end: _Spot, gap: float) -> _Spot:
    """Return where the line from the middle of a card leaves it, and a little beyond."""
    dx, dy = end.x - start.x, end.y - start.y
    length = math.hypot(dx, dy) or 1.0
    scale = min(
        (CARD_WIDTH / 2) / abs(dx) if dx else math.inf,
        (CARD_HEIGHT / 2) / abs(dy) if dy else math.inf,
    )
    scale += gap / length
    return _Spot(start.x + dx * scale, start.y + dy * scale)


def _label(
    x: float,
    y: float,
    text: str,
    *,
    size: int,
    fill: str = _INK,
    weight: int = 400,
    anchor: str = "start",
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{fill}" font-weight="{weight}" '
        f'text-anchor="{anchor}">{escape(_shown(text))}</text>'
    )


def _shown(text: str) -> str:
    """Replace what is no character of XML, and what turns text round: names are somebody else's."""
    return _UNSEEN.sub("\ufffd", text)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
