"""What commands draw or write line by line: bars, a status line, rows as JSON, warnings of the input."""
