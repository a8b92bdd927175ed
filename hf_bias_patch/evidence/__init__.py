"""EVIDENCE: measures that a variant computes what its source computes. Never edits."""
