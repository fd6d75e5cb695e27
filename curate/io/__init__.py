"""Bytes: where they lie, how they are read, written and decoded, and what reads them in parallel."""
