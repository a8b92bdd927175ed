"""Damaged and hostile files, thousands of them: each ends in a result or in a refusal of ours. See `__main__`."""
