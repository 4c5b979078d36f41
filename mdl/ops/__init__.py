"""Operations: what mdl does, one file each: get, verify, lock, clean; pack, unpack and release."""
