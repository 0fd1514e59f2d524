"""The meaning of a session: policy, rules, columns, ids and state. No input or output, no clock, no configuration."""
