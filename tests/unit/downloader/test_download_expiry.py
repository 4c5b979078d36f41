"""When a signed URL expires, as its own query says."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

from support.cases import each

from mdl.urls import expires_at

SIGNED = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
STAMP = SIGNED.strftime("%Y%m%dT%H%M%SZ")
END = SIGNED + timedelta(seconds=300)


@each(
    ("query", "seconds"),
    [
        (f"Expires={int(END.timestamp())}&Signature=x", 200),
        (f"X-Amz-Date={STAMP}&X-Amz-Expires=300&X-Amz-Signature=x", 200),
        (f"X-Goog-Date={STAMP}&X-Goog-Expires=300&X-Goog-Signature=x", 200),
        (f"sv=2024-01-01&se={END:%Y-%m-%dT%H%%3A%M%%3A%SZ}&sig=x", 200),
        (f"se={END:%Y-%m-%dT%H:%M:%SZ}&sig=x", 200),
        ("se=soon&sig=x", math.inf),
        ("se=2020-01-01", math.inf),
        ("Expires=never", math.inf),
        ("token=opaque", math.inf),
        ("", math.inf),
    ],
)
def test_expiry_is_read_from_the_query(query: str, seconds: float) -> None:
    """Four dialects of signed URLs say when they end; whatever else stands in a query says nothing."""
    assert expires_at(f"https://host/f?{query}") - (SIGNED.timestamp() + 100) == seconds
