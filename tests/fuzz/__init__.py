"""Fuzzing: functions that take any bytes whatever, what they are tried with, and the inputs that once broke mdl.

`targets` are the functions, `seeds` what they are usually given, `mutation` makes other bytes of it, `trial` says what
counts as broken, `run` is the long run; ``tests/corpus/fuzz`` keeps what was found
for `test_fuzz` to replay.
"""
