"""Artefacts in, artefacts out: one function a stage, the same names as the commands."""
