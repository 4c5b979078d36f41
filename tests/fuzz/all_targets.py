"""Every target: those of mdl itself, and those of its plug-ins where they are installed."""

from __future__ import annotations

from importlib.util import find_spec

from fuzz.targets import TARGETS as OWN

TARGETS = dict(OWN)
if find_spec("mdl.plugins") is not None:
    from fuzz.plugin_targets import TARGETS as OF_PLUGINS

    TARGETS |= OF_PLUGINS
