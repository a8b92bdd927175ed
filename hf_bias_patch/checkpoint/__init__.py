"""FILES AND BYTES: where a checkpoint lies, what its files hold, how it is written. Knows no attention."""
