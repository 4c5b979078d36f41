"""Settings, their tables and flags, and the places of mdl's own files."""
