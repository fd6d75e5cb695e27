"""The command line of `train`, and `curate` as a whole: `python -m train.cli`."""
