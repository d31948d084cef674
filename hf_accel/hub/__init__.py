"""Publishing a run: model card, notebook, demo Space and the upload."""
