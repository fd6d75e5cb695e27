"""Learn from datasets, and measure what they were worth on other tasks."""
