"""What is wrong with anybody's tars: one sample at a time, and what needs all samples at once."""
