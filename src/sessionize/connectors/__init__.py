"""Connectors: sources and sinks that fit the ports, a folder for each system, with the same file names in each."""
