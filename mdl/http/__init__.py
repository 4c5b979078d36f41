"""The network: the only room that knows httpx."""

import sys
from typing import Any, cast

# httpx imports a command-line program of its own, with Rich and Click, where those are installed: two thirds of
# its import time. Without that module it falls back to a stub, and nothing else changes.
cast("dict[str, Any]", sys.modules).setdefault("httpx._main", None)
