"""Flags in, exit code out. The only Typer; `mdl.client` and `mdl.api` do the rest."""
