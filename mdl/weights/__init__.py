"""What the files of a model's weights are called and how they end, read without running anything in them."""
