"""How tars are written: which rows each has, what its members are, and how images are made smaller."""
