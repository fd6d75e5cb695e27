"""Experiments: sets, runs and transfer from one file."""
