"""Jobs: what runs and ran, on disk: a record and a log each, the log of all, signals, what is left for others."""
