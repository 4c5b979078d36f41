"""Fuzzing: functions that take any bytes, the bytes that they are tried with, and the inputs that once broke mdl.

`targets` and `net` are the functions, `seeds` their usual inputs, `mutation` changes those, `trial` says what counts as
broken, `run` is the long run. ``tests/corpus/fuzz`` keeps the findings, which `test_fuzz` tries again.
"""
