"""Planning with a world model: planners minimise a cost over sequences of actions. They take functions, no models."""
