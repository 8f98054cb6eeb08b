"""Items become vectors."""
