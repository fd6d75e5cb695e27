"""The methods, one a file: supervised, CLIP and SimCLR, their losses and their loaders."""
