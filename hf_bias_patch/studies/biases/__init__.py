"""Which attention biases a study changes, to what values, and back again bit for bit."""
