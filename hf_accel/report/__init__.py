"""What a run did and measured, as a file, a table and a page."""
