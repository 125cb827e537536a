"""The world Craft: scenes of moving objects and fixtures, and questions about causes."""
