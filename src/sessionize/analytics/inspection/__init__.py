"""Guesses what the columns of an input are, from a sample of its records: pure, with the reason for each guess."""
