"""The layouts in which tables of images and texts are published; docs/layouts.md is made of the list."""
