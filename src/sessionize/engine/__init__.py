"""The motion: what feeds events to the kernel and sessions to the sinks."""
