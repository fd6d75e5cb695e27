"""From tables of URLs to bytes: what strangers' tables name is fetched, or its absence has a reason to count by."""
