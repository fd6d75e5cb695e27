"""What a model is worth on its own data: accuracy, zero-shot, nearest neighbours, scores of samples."""
