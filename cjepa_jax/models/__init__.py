"""The networks. The only place that imports flax: everything else sees init, apply and nested dicts."""
