"""Learn from datasets, and measure what they were worth on other tasks."""

import os

# Idle OpenMP threads sleep instead of spinning. Spinning costs most of the machine where anything else runs on it:
# 171 samples/s with it, 475 to 916 without (convnet, 32 px, two busy cores). torch reads this once, when it loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
