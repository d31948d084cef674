"""A trained model made smaller or faster for prediction: exported, and measured against what it was made from."""
