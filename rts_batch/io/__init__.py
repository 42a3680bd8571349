"""Bytes in, bytes out: storage, frames, result tables. Knows no model."""
