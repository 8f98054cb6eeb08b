"""Gradients: objectives, the trainer's glue, schedules and checkpoints."""
