"""The paper's experiments on any checkpoint: what each bias does."""
