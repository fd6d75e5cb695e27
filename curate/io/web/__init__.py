"""The web as an address: which hosts may be asked, and what a request may come to."""
