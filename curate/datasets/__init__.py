"""A dataset on disk: opened, staged and written, shown, compared, queried, verified and exported."""
