"""Linear algebra that the formulas need, by the algorithm that suits the device."""
