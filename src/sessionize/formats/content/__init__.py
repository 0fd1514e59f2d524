"""What the bytes of an input are: their compression, encoding and format, and the text inside."""
