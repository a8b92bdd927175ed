"""What was found, as sentences made from the records alone."""
