"""Files as bounded input and output, and followed directories as a stream source."""
