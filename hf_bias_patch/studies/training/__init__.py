"""What training does to biases, and what they do to the function: in memory, on a study's own texts."""
