"""Bundles: models as one plain tar for machines without a network, and back into a store there."""
