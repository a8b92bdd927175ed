"""Many models on the Hub, looked at without downloading any: their biases counted, drawn and kept."""
