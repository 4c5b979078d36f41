"""Writes the tables of settings in configuration.md, beside this file, from the table in `mdl.config.settings`.

python docs/configuration.py           # write them
python docs/configuration.py --check   # write nothing; exit with 1 if they are not up to date
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from html import escape
from pathlib import Path

from mdl.config.settings import Setting, settings_table

PAGE = Path(__file__).with_suffix(".md")
_TABLE = re.compile(r"(?<=<!-- )(kept|of-a-run)(: [^>]* -->\n\n).*?(?=\n<!-- end -->)", re.DOTALL)
_WITHOUT = {
    "home": "`mdl/models` in the user data folder",
    "catalog": "the nearest `catalog.toml`, the user's, the shipped one",
    "log_file": "`downloads.log` in the user state folder",
}
"""What holds if a setting without a default is not set."""


def page(text: str) -> str:
    """The page ``text`` with its tables as they should be."""
    table = settings_table().values()

    def written(found: re.Match[str]) -> str:
        return found[1] + found[2] + _rows(one for one in table if one.of_a_run == (found[1] == "of-a-run"))

    return _TABLE.sub(written, text)


def _rows(settings: Iterable[Setting]) -> str:
    lines = ["| setting, flag, variable | default | meaning |", "|---|---|---|"]
    for setting in settings:
        takes = "" if isinstance(setting.default, bool) else f" {setting.metavar}"
        flag = setting.flag_name and setting.flag_name + takes
        names = [_code(name) for name in (setting.name, flag, setting.variable_name) if name]
        lines.append(f"| {'<br>'.join(names)} | {_default(setting)} | {_prose(setting.help)} |")
    return "\n".join(lines) + "\n"


def _prose(text: str) -> str:
    return text.replace("|", "&#124;").replace("<", "&lt;")


def _code(text: str) -> str:
    """``text`` as code in a cell, where a bar would end the cell."""
    if "|" in text:
        return f"<code>{escape(text, quote=False).replace('|', '&#124;')}</code>"
    return f"`{text}`" if text else ""


def _default(setting: Setting) -> str:
    if isinstance(setting.default, bool):
        return "no"
    return _code(str(setting.default)) if setting.default else _WITHOUT.get(setting.name, "none")


def main(words: list[str]) -> int:
    before = PAGE.read_text("utf-8")
    after = page(before)
    if words != ["--check"]:
        PAGE.write_text(after, "utf-8")
        return 0
    if after != before:
        sys.stdout.write(f"{PAGE} is not up to date: python docs/configuration.py\n")
    return int(after != before)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
