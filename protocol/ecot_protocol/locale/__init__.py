# SPDX-License-Identifier: AGPL-3.0-or-later
"""Texts of reasons, entry types and units, for node and clients alike. The rules themselves never read one.

- A key is ``reason.<code>`` (a refusal, or the code of a `RemoteProtocolError`), ``entry.<tag>``, ``unit.<code>``, or
  begins with the name of its catalogue (``cli.``, ``node.``).
- The catalogues are gettext files, ``<locale>/<catalogue>.po``, one for each domain and floor, merged when a locale is
  first asked for; a key stands in one catalogue only, and has the same parameters in every locale.
- A text names its parameters (``{balance_minor}``); amounts and dates are made readable by the caller, who knows the
  unit and the time zone.

>>> translate("reason.tile_level_wrong", "en", level=64)
'No tile has level 64.'
>>> translate("reason.of_a_later_release", "fr")
'reason.of_a_later_release'
"""

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Final

from babel.messages.pofile import read_po

__all__ = ["FALLBACK_LOCALE", "available_locales", "choose_locale", "load_catalogue", "translate"]

FALLBACK_LOCALE: Final = "en"
"""Where a text is looked for when the asked locale lacks it."""

_PARAMETER: Final = re.compile(r"\{([a-z][a-z0-9_]*)\}")


@cache
def available_locales() -> tuple[str, ...]:
    """Return the languages that have catalogues, in alphabetical order."""
    return tuple(sorted(entry.name for entry in resources.files(__name__).iterdir() if _is_language(entry.name)))


def choose_locale(wanted: str) -> str:
    """Return the available language nearest to what a system or a browser asks for.

    Args:
        wanted: such as ``fr_FR.UTF-8``, ``fr-BE``, ``C``.

    >>> choose_locale("fr_BE.UTF-8"), choose_locale("C")
    ('fr', 'en')
    """
    language = re.split(r"[-_.@]", wanted, maxsplit=1)[0].lower()
    return language if language in available_locales() else FALLBACK_LOCALE


def translate(key: str, locale: str, /, **params: object) -> str:
    """Return the text of a key with its parameters filled in.

    Never raises: a key without text answers itself, a parameter that is not given stays as it is written, because a
    newer node may send reasons that this release does not know.

    Args:
        key: such as ``reason.credit_limit_exceeded``.
        locale: see `choose_locale`.
        params: values of the named parameters.
    """
    text = load_catalogue(choose_locale(locale)).get(key) or load_catalogue(FALLBACK_LOCALE).get(key)
    if text is None:
        return key
    return _PARAMETER.sub(lambda found: str(params.get(found[1], found[0])), text)


@cache
def load_catalogue(language: str) -> Mapping[str, str]:
    """Return every text of one available language, by key."""
    texts: dict[str, str] = {}
    for path in sorted(resources.files(__name__).joinpath(language).iterdir(), key=lambda entry: entry.name):
        if path.name.endswith(".po"):
            with path.open("rb") as file:
                texts |= {str(message.id): str(message.string) for message in read_po(file) if message.string}
    texts.pop("", None)
    return texts


def _is_language(name: str) -> bool:
    return re.fullmatch(r"[a-z]{2,3}", name) is not None
