"""Bounded input to sessions or labelled events, in bounded memory."""
