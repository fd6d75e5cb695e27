"""Build controlled pre-training sets: two sets differ in the one thing that is named, and in nothing else."""
