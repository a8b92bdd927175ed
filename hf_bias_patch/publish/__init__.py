"""What is shared with others: models on the Hub, many at once."""
