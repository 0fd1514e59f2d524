"""The wiring: configuration, plans, and the one place that knows both the engine and the connectors."""
