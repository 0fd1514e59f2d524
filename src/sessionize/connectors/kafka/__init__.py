"""Kafka: a topic as a stream source, topics as a sink of epochs, and synthetic events to a topic."""
