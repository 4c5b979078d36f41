"""Work: what a manifest has mdl do, whoever runs it. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import field

from mdl.bounds import brief
from mdl.errors import EXIT_CODES, UsageError
from mdl.units import Window
from mdl.values import value_class

_DNS_NAME = r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?"
NIGHT = "22:00-06:00"
"""The usual hours of systemd and cron."""
MINUTE = 5
"""The minute of an hour at which a nightly run begins, so that not everything on a machine begins at once."""
_MOST_LATE = 10
_DOCUMENTS = ("catalog_text", "lock_text")
"""Fields with whole documents, in which lines end. Every other text is one line of a manifest."""
USUAL_PROGRAM = "/usr/local/bin/mdl"
"""Where a service looks for mdl if nothing else is said."""
INSTALL_FOR_ALL = "python3 -m venv /opt/mdl && /opt/mdl/bin/pip install . && ln -sf /opt/mdl/bin/mdl /usr/local/bin/mdl"
"""The line that installs mdl for all users, in a checkout of it."""
HOMES = ("/home", "/root", "/run/user")
"""What systemd hides from a service whose ProtectHome= says so."""
TEMPORARY = ("/tmp", "/var/tmp")
"""What is another folder for a service whose PrivateTmp= says so."""


@value_class
class Work:
    """What is to be brought, and how.

    ``names`` are models and groups of the catalog; ``program`` are the words by which mdl is called if that was said,
    ``home`` is the models folder and ``catalog`` the catalog, '' leaves a choice to mdl; ``variables`` are those of the
    environment that it needs beside them, and ``shell`` further ones, which are comments of the manifest, each with
    its value, or '' in the place of a secret. It ``is_locked`` if the lock has all models, and ``lacks_program`` if
    there is no mdl yet that a service can run. ``limits`` are flags of ``mdl get`` with their values.

    For runs by night: ``schedule`` says when they begin, in the words of the format, instead of every hour of
    ``window``; ``mail_to`` gets what cron mails. For Kubernetes: the ``shape`` (``job`` or ``daemonset``), the
    ``image`` of mdl, the volume ``claim``, the ``secret`` with the token of the hub (``NAME`` or ``NAME/KEY``), and
    catalog and lock of ``names`` alone, as text; ``left_out`` names the files and models of whose URLs something is not
    in them because it may be a secret.
    """

    names: Sequence[str]
    program: Sequence[str] = ()
    home: str = ""
    catalog: str = ""
    is_locked: bool = False
    limits: Sequence[str] = ()
    window: Window | None = None
    lacks_program: bool = field(default=False, repr=False)
    schedule: str = ""
    mail_to: str = ""
    shape: str = "job"
    image: str = "mdl"
    claim: str = "models"
    secret: str = "hf-token"
    variables: Mapping[str, str] = field(default_factory=dict)
    shell: Mapping[str, str] = field(default_factory=dict, repr=False)
    catalog_text: str = field(default="", repr=False)
    lock_text: str = field(default="", repr=False)
    left_out: Sequence[str] = field(default=(), repr=False)

    def check(self) -> None:
        """Raises `UsageError` for what a manifest cannot have."""
        for name, value in vars(self).items():
            if name in _DOCUMENTS:
                continue
            for text in _texts_in(value):
                if not text.isprintable():
                    raise UsageError(f"a manifest cannot have {brief(text)}", hint="leave out control characters")
        if self.home and not self.home.startswith("/"):
            raise UsageError("it must be an absolute path", item="--to", hint="begin it with /")
        for flag, text, pattern in (
            ("--claim", self.claim, _DNS_NAME),
            ("--secret", self.secret, rf"{_DNS_NAME}(/[-._a-zA-Z0-9]+)?"),
            ("--image", self.image, r"[\w][\w./:@-]*"),
        ):
            if not re.fullmatch(pattern, text, re.ASCII):
                raise UsageError(f"{text!r} is not a name that Kubernetes takes", item=flag)

    @property
    def environ(self) -> dict[str, str]:
        """The variables that a run needs; empty ones are left out."""
        own = {"MDL_CATALOG": self.catalog, "MDL_HOME": self.home}
        return {name: value for name, value in (own | dict(self.variables)).items() if value}

    def shell_comments(self, assignment: Callable[[str, str], str], but: Container[str] = ()) -> list[str]:
        """Comments that set the variables of this shell, for the user to choose from.

        ``assignment`` writes a name and a value as the manifest would have them. Variables that the manifest sets
        already, or that are in ``but``, are left out.
        """
        comments: list[str] = []
        for name, value in self.shell.items():
            if name in self.environ or name in but:
                continue
            if not comments:
                comments.append(
                    "# Variables of your shell that mdl reads, and your token's file. Remove a # to set one here too:"
                )
            if not value:
                comments.append(f"# {name} may hold a secret, so its value is not written here:")
            comments.append(f"#{assignment(name, value)}")
        return comments

    def command(self, verb: str, *more: str) -> list[str]:
        """The words of ``mdl get`` or ``mdl prefetch``, with the flags ``more``."""
        locked = ["--locked"] if self.is_locked else []
        return [*(self.program or ["mdl"]), verb, *locked, *more, *self.limits, *self.names]

    def nightly_command(self, *more: str) -> list[str]:
        """The words of ``mdl prefetch`` for what starts programs by their full paths. Raises `UsageError`."""
        program, *words = self.command("prefetch", *more)
        if not self.program:
            program = USUAL_PROGRAM
        elif not program.startswith("/"):
            raise UsageError(
                f"{program!r} is not a full path", item="--mdl", hint="begin it with /: PATH is short there"
            )
        return [program, *words]

    def starts(self) -> tuple[list[int], int]:
        """The hours of the day in which a run begins, and the minute of them: every hour of the window, or once if it
        is too short for that."""
        window = self.window or Window(0, 0)
        hours = [hour for hour in range(24) if window.is_open(hour * 60 + MINUTE)]
        return (hours, MINUTE) if hours else ([window.start // 60], window.start % 60)

    def spread(self) -> int:
        """By how many minutes each start may be late and still leave half of what is left of the window."""
        hours, minute = self.starts()
        window = self.window or Window(0, 0)
        spread = _MOST_LATE
        for hour in hours:
            open_minutes = sum(window.is_open(hour * 60 + minute + late) for late in range(2 * _MOST_LATE))
            spread = min(spread, open_minutes // 2)
        return spread


def _texts_in(value: object) -> Iterator[str]:
    """Every text of a field: itself, those of a list, the keys and values of a table."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from map(str, value)
        yield from map(str, value.values())
    elif isinstance(value, Sequence):
        yield from map(str, value)


@value_class
class RenderedFile:
    """One file of a manifest: what it is called usually, and its text."""

    name: str
    text: str


@value_class
class Rendered:
    """A manifest: its format and its files, which stand one after the other in ``text``. ``warnings`` say what it needs
    that is not there. ``left_out`` names the files and models of whose URLs something is not in it because it may be a
    secret."""

    format: str
    files: tuple[RenderedFile, ...]
    left_out: Sequence[str] = field(default=(), repr=False)
    warnings: Sequence[str] = ()

    @property
    def text(self) -> str:
        """All files; several have their names before them."""
        if len(self.files) == 1:
            return self.files[0].text
        return "\n".join(f"# ---------- {file.name} ----------\n{file.text}" for file in self.files)


def meaning(codes: Sequence[int]) -> str:
    """Exit codes in words: ``5 network, 9 busy``."""
    return ", ".join(f"{code} {EXIT_CODES[code][0]}" for code in codes)


def ranges(numbers: Sequence[int], dash: str, digits: int = 1) -> str:
    """Numbers in order, as ``0-5,22-23``."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    parts = []
    for first, last in runs:
        part = f"{first:0{digits}}"
        if last > first:
            part += f"{dash}{last:0{digits}}"
        parts.append(part)
    return ",".join(parts)
