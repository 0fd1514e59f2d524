"""The speed: the incremental core, and the slow reference that it must equal."""
