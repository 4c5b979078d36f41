"""Console: events become bars, plain lines or JSON lines. The only room that prints, and the only Rich."""

from mdl.console.face import Console

__all__ = ["Console"]
