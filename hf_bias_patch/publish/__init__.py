"""What is shared with others: cards of variants, and models on the Hub, many at once."""
