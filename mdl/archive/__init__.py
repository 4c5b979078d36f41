"""Trained runs: what a folder holds, what of it is packed, and how an archive is written, read and put into service."""
