"""What a run measures of itself: its log, throughput, FLOPs and profile."""
