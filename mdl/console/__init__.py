"""Console: events become bars, plain lines or JSON lines. The only room that prints, and the only Rich."""

from mdl.console.reporter import Console, ConsoleOptions, progress_bars

__all__ = ["Console", "ConsoleOptions", "progress_bars"]
