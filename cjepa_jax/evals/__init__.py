"""What a representation is worth. Everything here takes functions (encode, predict) and arrays, never model classes."""
