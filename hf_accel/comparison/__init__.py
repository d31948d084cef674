"""Several runs side by side: the plan, the rounds, the table and the page."""
