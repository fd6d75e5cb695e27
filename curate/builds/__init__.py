"""How a dataset is made: the plan, the steps with their ledger, and the shards."""
