"""What outlives a run: objects and packs by content, finished packages and their records."""
