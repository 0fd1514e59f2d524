"""What can be said about sessions and events once they are there."""
