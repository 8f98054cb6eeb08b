"""Examples become model inputs."""
