"""The meaning of a session: policy, rules, columns, ids and output tables. No input, output, clock or configuration."""
