# SPDX-License-Identifier: AGPL-3.0-or-later
"""Check that every relative link of the documentation leads somewhere.

Run by ``make check``; prints one line for each broken link and exits 1 if there is any.
"""

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
_CODE: Final = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
_LINK: Final = re.compile(r"\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")
_HEADING: Final = re.compile(r"^#{1,6}\s+(.+?)\s*$", re.MULTILINE)


def list_pages() -> list[Path]:
    """Return the Markdown pages that git knows or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [ROOT / line for line in listed.splitlines() if (ROOT / line).is_file()]


def list_anchors(text: str) -> set[str]:
    """Return the anchors that a code forge gives to the headings of a page."""
    headings = (re.sub(r"[^\w\s-]", "", heading.lower()) for heading in _HEADING.findall(text))
    return {heading.strip().replace(" ", "-") for heading in headings}


def find_broken_links(page: Path) -> list[str]:
    """Return ``page:link`` for each relative link of a page whose file or heading is missing."""
    broken = []
    for link in _LINK.findall(_CODE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z][a-z0-9+.-]*:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page if not path else (page.parent / path).resolve()
        is_missing = not target.exists()
        if not is_missing and anchor and target.suffix == ".md":
            is_missing = anchor not in list_anchors(target.read_text(encoding="utf-8"))
        if is_missing:
            broken.append(f"{page.relative_to(ROOT)}: {link} leads nowhere")
    return broken


def main() -> int:
    """Check every page; return the exit code."""
    broken = [line for page in list_pages() for line in find_broken_links(page)]
    print("\n".join(broken), end="\n" if broken else "")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
