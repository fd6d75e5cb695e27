"""Shards: WebDataset tars that say the same bytes on every rebuild, and the index that finds a sample in them."""
