"""The status page: one HTML document with all that it needs in it, which asks for ``api/status`` and draws it."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import Final

PAGE: Final = Path(__file__).with_name("page.html").read_text("utf-8")


def _hash_of(tag: str) -> str:
    """The one element ``tag`` of the page, as a content security policy names it."""
    (inner,) = re.findall(f"<{tag}>(.*?)</{tag}>", PAGE, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(inner.encode()).digest()).decode()}'"


_POLICY = f"default-src 'none'; script-src {_hash_of('script')}; style-src {_hash_of('style')}; connect-src 'self'"
HEADERS: Final = {
    "Content-Security-Policy": f"{_POLICY}; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
"""Nothing but the page's own script and style may run, and it may ask this server only."""
