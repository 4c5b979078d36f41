"""Numbers of TOML are measured before they are converted, and told with their key and line."""

from __future__ import annotations

import pytest
from support.cases import each

from mdl.errors import UsageError
from mdl.toml import TomlError, parse_toml
from mdl.toml.table import Problems

HEX, DECIMAL, BINARY, OCTAL = "0x" + "f" * 6000, "9" * 6000, "0b" + "1" * 6000, "0o" + "7" * 6000
LARGE = {
    "hex": HEX,
    "decimal": DECIMAL,
    "binary": BINARY,
    "octal": OCTAL,
    "zeros": "0x" + "0" * 6000 + "1",
    "signed": "-" + DECIMAL,
    "underscores": "9_" * 3000 + "9",
    "float": "1." + DECIMAL,
    "exponent": "1e999",
    "signed exponent": "-1.5E+400",
    "long exponent": "1e" + DECIMAL,
    "over 64 bits": str(2**63),
    "hex over 64 bits": "0x8000000000000000",
}


@each("number", LARGE.values(), ids=LARGE)
@each("form", ["k = {}", "k = [1, {}]", "k = [\n {} ,\n]", "k = {{a = {}}}", "k={} # so", "a.k = {}"])
def test_large_numbers(number: str, form: str) -> None:
    """One wherever a value can stand is refused, with the key that it belongs to."""
    with pytest.raises(TomlError) as caught:
        parse_toml("first = 1\n[t]\n" + form.format(number))
    assert len(str(caught.value)) < 120
    [found] = caught.value.problems
    assert found.key in (("t", "k"), ("t", "a", "k"))
    assert found.line == (4 if "\n" in form else 3)


@each(
    "text",
    [
        f"k = 'x = {DECIMAL}'",
        f'k = "x = {DECIMAL}"',
        f"k = '''\nx = {DECIMAL}\n'''",
        f"k = 1 # = {DECIMAL}",
        f"{DECIMAL} = 1",
        "k = 2026-11-23T11:40:12.123456789Z",
        "k = [inf, -inf, nan, 1e300, 0x7fffffffffffffff, -9223372036854775808]",
        f"k = 0.{'1' * 90}",
    ],
)
def test_what_is_not_large(text: str) -> None:
    """Digits in quotes, in comments and in keys are no numbers; what a reader of TOML must know is read."""
    parse_toml(text)


def test_all_of_them_are_told() -> None:
    """Each number is a problem of its own key and line."""
    problems = Problems("config.toml", UsageError)
    assert problems.file("config.toml", f"[defaults]\nconnections = {HEX}\nretries = {DECIMAL}\n").parse() is None
    with pytest.raises(UsageError) as caught:
        problems.check()
    assert "config.toml:2: defaults.connections: the number 0xffffffffffffffffff… (6,002 characters)" in str(
        caught.value
    )
    assert "config.toml:3: defaults.retries: the number 99999999999999999999… (6,000 characters)" in str(caught.value)
