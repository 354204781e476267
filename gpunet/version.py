"""The version, which files that are written tell."""

__version__ = "0.1.0"
