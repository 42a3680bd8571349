"""rts-batch: masks of one object through thousands of videos, with the RTS tracker on Ray."""

__version__ = "0.1.0"
