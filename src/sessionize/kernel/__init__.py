"""The kernel: the incremental core that every engine runs, and the slow reference that it must equal."""
