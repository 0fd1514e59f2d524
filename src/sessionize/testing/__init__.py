"""What tests of sessionize, and of things built on it, are made with."""
