"""How tars are written: where each begins, what its members are, and how images are made smaller."""
