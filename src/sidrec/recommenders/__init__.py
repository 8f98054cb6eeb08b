"""Histories become next items."""
