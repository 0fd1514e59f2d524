"""Engines feed events to the kernel and rows to the sinks: batch, stream, and reconcile for late events."""
