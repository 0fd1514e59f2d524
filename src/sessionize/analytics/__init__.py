"""Analyses of existing sessions and events."""
