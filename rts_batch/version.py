"""The package's version, for every floor; the package itself is the roof, which nothing below imports."""

__version__ = "0.1.0"
