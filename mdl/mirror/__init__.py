"""Mirror: an object store that holds what the lock holds, and what mdl asks of it beyond reading."""
