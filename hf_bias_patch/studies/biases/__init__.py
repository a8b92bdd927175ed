"""Which attention biases a study changes, and into what; put back bit for bit."""
