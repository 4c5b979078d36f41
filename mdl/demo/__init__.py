"""A hub on this machine alone, for ``mdl demo`` and for tests. Nothing else in mdl imports it."""
