"""What a change does to a model: states, choices and loss, on texts."""
