"""Models: backbones by name, CLIP's two encoders, the tokenizer."""
