"""The tasks: what a task is, which there are, and the files of each."""
