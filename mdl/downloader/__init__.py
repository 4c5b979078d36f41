"""From a plan to files: partials, journals, segments, verification, publishing."""
