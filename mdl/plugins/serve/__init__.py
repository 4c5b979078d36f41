"""serve: what is on this disk, over HTTP: models in the hub's protocol, trained runs as zips, and a status page.

`mdl.plugins.serve.server.serving` is the server. Nothing can be written over HTTP. Starlette and uvicorn are known in
this folder alone, and are imported when a server is started.
"""

from mdl.plugin import Plugin, PluginCommand

PLUGIN = Plugin(
    commands={"serve": PluginCommand("mdl.plugins.serve.command", "Serve what is on this disk, with a status page")},
    heading="Many machines",
)
