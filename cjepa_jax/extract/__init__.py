"""Slots, or an image encoder's features, of whole videos, as files that a slot predictor trains on."""
