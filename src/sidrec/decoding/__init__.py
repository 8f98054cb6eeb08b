"""Scores become items, under an exact catalogue constraint."""
