"""Flags in, exit code out. The only Typer, and the composition root: nothing below opens a client by itself."""
