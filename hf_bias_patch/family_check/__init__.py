"""Holds the family table against small random models of every type that transformers has; drafts new families."""
