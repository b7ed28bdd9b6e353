"""Property tests: each claim of the course, checked on every implementation in every regime of inputs."""
