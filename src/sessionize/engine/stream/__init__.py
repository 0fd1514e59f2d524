"""Unbounded input to sessions, in epochs, exactly once (docs/adr/0009-epochs.md)."""
