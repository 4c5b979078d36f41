"""A plug-in: files on a web server, ``shelf://host/name``, as a source of models; and a command that lists them."""

from mdl.plugin import Plugin, PluginCommand

PLUGIN = Plugin(
    commands={"shelf": PluginCommand("mdl_shelf.command", "List what is on a shelf")},
    sources={"shelf": "mdl_shelf.source"},
)
