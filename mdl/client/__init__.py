"""Client: the settings, and every operation under them, told in chapters: each builds on the one before it. No
Typer, no Rich, no signals.
"""

from __future__ import annotations

from mdl.client.base import CallOptions, ClientOptions, MdlWarning, Targets, Texts
from mdl.client.remotes import Remotes

__all__ = ["CallOptions", "Client", "ClientOptions", "MdlWarning", "Targets", "Texts"]


class Client(Remotes):
    """Everything that mdl does with models, under one set of settings.

    Settings are keyword arguments (`mdl.Settings` lists them). What is not given is read as the command line reads it:
    from ``MDL_…`` variables, then ``config.toml``, then the defaults. ``on_event`` is called with every event of an
    operation, in the thread that called it (see `mdl.events`); ``progress`` draws bars on stderr instead. Once
    ``cancel`` is set, from any thread, the running operation and all later ones raise `Cancelled`; what was fetched is
    kept. ``on_warning`` is told what may hurt later, in words; the default is `warnings.warn`.

    A client may be used from several threads at once. It installs no signal handler, writes nothing to stdout, and
    never ends the process.
    """
