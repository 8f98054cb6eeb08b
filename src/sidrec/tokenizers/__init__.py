"""Vectors become semantic IDs."""
