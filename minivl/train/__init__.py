"""Training: the tiny world that the tiny model learns from, and the stages that teach it."""
