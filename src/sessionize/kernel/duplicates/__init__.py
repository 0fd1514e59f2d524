"""Rule 1: events that repeat one of before, which an earlier step settled."""
