"""From bytes to pixels: decoding, crops, views, and augmentation on the device."""
