"""Toy data with a known answer, and the contracts that every part must pass. For plug-ins too."""
