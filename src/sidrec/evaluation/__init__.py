"""Lists become numbers."""
