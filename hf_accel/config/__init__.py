"""What a run is told: recipes, their sections and the checks of both. Imports no torch."""
