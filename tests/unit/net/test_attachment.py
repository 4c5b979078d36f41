"""The name in a Content-Disposition: whatever the header holds, one part of a path or nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from support.cases import each

from mdl.net.headers import attached_name


@given(st.text(max_size=80))
def test_it_is_never_a_path(text: str) -> None:
    """No header whatever gives a name with a slash or a backslash, or fails."""
    for form in (text, f"attachment; filename={text}", f'attachment; filename="{text}"', f"a; filename*=UTF-8''{text}"):
        name = attached_name({"content-disposition": form})
        assert "/" not in name
        assert "\\" not in name


@each(
    ("header", "name"),
    [
        ('attachment; filename="a.bin"; filename="b.bin"', "a.bin"),
        ('attachment; name="x"; filename = "a;b.bin"', "a;b.bin"),
        ("filename=a.bin", ""),
        ("attachment; filename*=a.bin", ""),
        ("attachment; filename*=UTF-16''a.bin", ""),
        ("attachment; filename*=UTF-8''..%2F..%2Fx.bin", "x.bin"),
        ('attachment; filename="/a/b/"', "b"),
    ],
)
def test_odd_headers(header: str, name: str) -> None:
    """The first name counts, another charset than RFC 8187 has is none, and of a path its last part is left."""
    assert attached_name({"content-disposition": header}) == name
