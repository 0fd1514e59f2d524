"""JSON records that are not one a line: inside arrays, over several lines, or with fields from a path."""
