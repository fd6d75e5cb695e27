"""Pages for people: the gallery of a dataset."""
