"""The walkthrough: one idea a notebook, in reading order. README.md lists them; build.py makes them from src/."""
