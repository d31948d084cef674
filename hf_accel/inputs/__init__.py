"""From stored images to normalised batches on the training device."""
