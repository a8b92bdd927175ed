"""Small random models of any type that transformers knows."""
