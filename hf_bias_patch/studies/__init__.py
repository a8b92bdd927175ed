"""The paper's experiments on any checkpoint: what each attention bias does."""
