"""Changes to whole batches of images on the training device: uint8 pixels in, normalised float32 out."""
