"""The command line of `curate`: commands, options, what is printed, and the generated reference."""
