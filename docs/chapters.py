"""The site's page "Many machines" has a chapter for each plug-in: mkdocs calls this.

A plug-in's page is beside its code: ``rm -r`` of the plug-in takes its chapter away and breaks no link.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PAGE = "many-machines.md"
_MARK = re.compile(r"<!-- chapters: .*?<!-- end -->", re.DOTALL)
_TO_DOCS = "](../../../docs/"


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """The page with the chapters in the place of its mark; any other page as it is."""
    if page.file.src_uri != PAGE:
        return markdown
    root = Path(config.config_file_path).parent
    texts = [chapter(place.read_text("utf-8")) for place in sorted(root.glob("mdl/plugins/*/*.md"))]
    return _MARK.sub(lambda _: "\n".join(texts), markdown)


def chapter(text: str) -> str:
    """The page of a plug-in, with its headings one level lower and its links as ``docs/`` has them."""
    return "\n".join(_lowered(text.replace(_TO_DOCS, "]("))) + "\n"


def _lowered(text: str) -> Iterator[str]:
    in_code = False
    for line in text.splitlines():
        if line.startswith("```"):
            in_code = not in_code
        is_heading = line.startswith("#") and not in_code
        yield f"#{line}" if is_heading else line
