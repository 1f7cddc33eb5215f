"""What filters in Python cost: ``python -m benches.filters``, and beside others `.compare`."""
