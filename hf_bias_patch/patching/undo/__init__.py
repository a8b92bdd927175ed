"""TAKING A PATCH BACK: the undo file of a variant, a zip archive of everything that restores its source bit for bit."""
