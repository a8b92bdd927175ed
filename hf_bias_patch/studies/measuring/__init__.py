"""What a change does to a model on texts: hidden states, top-1 agreement and loss."""
