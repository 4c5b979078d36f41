"""Trainers: the rows of `mdl.runs.known_layouts`, a file for each sort of training."""
