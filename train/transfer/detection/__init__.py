"""Detection: where the objects of an image are, by detectors whose first layers are a run's."""
