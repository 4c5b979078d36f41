"""HTTP: the only room that knows httpx."""

import sys
from typing import Any, cast

# If Rich and Click are installed, httpx imports a command-line program of its own, which takes two thirds of its import
# time. Without that module it falls back to a stub, and nothing else changes.
cast("dict[str, Any]", sys.modules).setdefault("httpx._main", None)
