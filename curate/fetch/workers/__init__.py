"""img2dataset's processes: what runs in them, and the watch over them."""
