"""Image classifiers of the Hub, of timm and of this package, ready to be trained."""
