"""Models and weights."""
