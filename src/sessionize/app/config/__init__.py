"""Configuration: the pipeline file, what overrides it, and the errors that name the key and its place."""
