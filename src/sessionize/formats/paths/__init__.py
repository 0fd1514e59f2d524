"""Paths of fields: what they may say, and how they are followed into JSON and into tables."""
