"""File systems: publishing, private files, entries reached without following links, copying, room on a volume."""
