"""Kafka: a topic as a stream to read from, topics as a sink of epochs, and made-up events to a topic."""
