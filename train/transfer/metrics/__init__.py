"""The metrics of tasks: top-1, mean per class, average precision."""
