"""Single forms of a time: units, strptime patterns, ISO 8601, local times. formats/times.py converts columns."""
