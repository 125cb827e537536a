"""Pictures of scenes: marks on frames, contact sheets, animations."""
