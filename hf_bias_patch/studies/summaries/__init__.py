"""What was found, in plain words made from the numbers alone."""
