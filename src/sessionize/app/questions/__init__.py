"""Use cases that answer questions about events and sessions: tune, diff, check."""
