"""One step of training: gradients, also in pieces, optimizers and norms."""
