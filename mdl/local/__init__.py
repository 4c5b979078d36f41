"""Models on this disk: list, verify, delete, move and clean them, and import those of other programs."""
