"""A data set as rows of train, validation and test; no image is decoded until it is read."""
