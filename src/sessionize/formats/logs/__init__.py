"""Web servers' logs to columns: combined and common, W3C extended, and any other by a pattern."""
