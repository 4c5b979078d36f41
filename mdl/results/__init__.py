"""Results: where trained results are, and what every kind of remote can do (`mdl.results.base`)."""
