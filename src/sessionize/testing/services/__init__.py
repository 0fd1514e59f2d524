"""Real servers for tests and demonstrations, started on loopback and stopped again."""
