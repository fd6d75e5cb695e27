"""How training goes: configuration, steps, processes, checkpoints, and what starts and ends a run."""
