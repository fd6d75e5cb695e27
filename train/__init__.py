"""Learn from datasets, and measure what they were worth on other tasks."""

import os

# Idle OpenMP threads sleep instead of spinning. Where anything else wants the cores, spinning costs most of them:
# 171 samples/s with it and 475 to 916 without, for convnet at 32 px on two busy cores. torch reads this once, when it loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
