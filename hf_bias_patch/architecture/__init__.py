"""WHAT A MODEL HAS: its attention sites, where each bias lives, and a verdict for each. Writes nothing."""
