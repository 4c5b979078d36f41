"""The demo: a model is downloaded and a trained run released, on this machine alone."""
