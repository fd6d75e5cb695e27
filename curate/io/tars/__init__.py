"""Tars: their headers, the walk through them, and the samples that their members make."""
