"""``python -m mdl`` and the ``mdl`` command."""

from __future__ import annotations

import sys

from mdl import __version__


def main() -> None:
    """Run mdl. ``--version`` alone is answered before anything heavy is imported."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        sys.stdout.write(f"mdl {__version__}\n")
        return
    from mdl.cli.main import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
