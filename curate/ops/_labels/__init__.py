"""What operations on labels share: cuts through WordNet, maps, merges and options."""
