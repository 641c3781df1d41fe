# SPDX-License-Identifier: AGPL-3.0-or-later
"""`ecot`: for members and board of a cooperative."""

import os
import sys
from collections.abc import Mapping, Sequence

import stamina.instrumentation

from ecot_cli.app import make_app
from ecot_protocol.locale import choose_locale


def find_locale(arguments: Sequence[str], environment: Mapping[str, str]) -> str:
    """Return the language: ``--lang``, else that of the system.

    Help is written before options are read, so ``--lang`` is looked for here.

    >>> find_locale(["pay", "--lang", "fr"], {}), find_locale([], {"LC_ALL": "fr_FR.UTF-8", "LANG": "C"})
    ('fr', 'fr')
    """
    for place, word in enumerate(arguments):
        if word == "--lang" and place + 1 < len(arguments):
            return choose_locale(arguments[place + 1])
        if word.startswith("--lang="):
            return choose_locale(word.removeprefix("--lang="))
    names = ("LC_ALL", "LC_MESSAGES", "LANG")
    return choose_locale(next((environment[name] for name in names if environment.get(name)), ""))


def main() -> None:
    """Run `ecot`."""
    # Repeated requests are not news to somebody at a terminal, and stdout belongs to the result.
    stamina.instrumentation.set_on_retry_hooks(())
    make_app(find_locale(sys.argv[1:], os.environ))()


if __name__ == "__main__":
    main()
