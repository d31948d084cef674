"""What this machine is and what it gives: device, precisions, memory, energy."""
