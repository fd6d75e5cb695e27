"""Batches from datasets: the loader, its order, its workers, and the texts of a batch."""
