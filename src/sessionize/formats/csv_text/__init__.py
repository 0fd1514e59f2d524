"""CSV to columns: rows of text, amounts as people write them, and the decoder of both."""
