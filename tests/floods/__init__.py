"""What one hostile client can send without end, and what it may cost everybody else."""
