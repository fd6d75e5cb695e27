"""One transfer: connections with deadlines, what is answered, and politeness to hosts."""
