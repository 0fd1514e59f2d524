"""Reconciliation: late events are merged into stored sessions, until these equal a batch over all events."""
