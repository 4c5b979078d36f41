"""Render: manifests that have a scheduler run mdl, all from one description of the work and one table of exit codes."""
