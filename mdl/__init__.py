"""mdl: models to the machine that needs them, trained ones away from the machine that made them."""

__version__ = "0.1.0"
