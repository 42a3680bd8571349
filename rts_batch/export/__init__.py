"""Takes a run's masks to where they are used: `run` does the work, `formats` has a small module for each format."""
